"""The table of means of token types: fixed before the spec, kept, checked, taken from a run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from sweeps import STUDY, configure, digest, flags, refused, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.store import run_directory, type_means_file, verify
from jaxlens.study import columns, fold, inputs
from jaxlens.sweep import devices, type_means
from jaxlens.sweep import run as sweep
from jaxlens.tally import axes, bins, definitions, facts

TABLE = "type_means.h5"
# Rows beside the third edition, and windows that repeat some context.
BOTH = STUDY | {
    "store.tallies": "study-3",
    "store.rows": "full",
    "store.quantities": ["norm", "retention", "retention_foreign", "js_final", "js_input"],
    "store.shard_tokens": 512,
    "plan.overlap": 5,
}


@pytest.fixture(scope="module")
def both(tiny, texts, tmp_path_factory):
    """A finished run with products within types and the rows that they are made from."""
    out = tmp_path_factory.mktemp("runs") / "both"
    with pytest.MonkeyPatch.context() as few:
        # A table of a fifth of the text, as that of a long run: it lacks types.
        few.setattr(type_means, "MIN_TOKENS", 800)
        assert sweep.run(configure(tiny, texts, out, **BOTH)).finished
    return out


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(type_means, "MIN_TOKENS", 800)


@pytest.fixture
def frozen(monkeypatch):
    """No table can be made any more."""

    def again(*_):
        raise AssertionError("the run has a table")

    monkeypatch.setattr(type_means, "_make", again)


def table(out):
    spec = json.loads((out / "RUN.json").read_bytes())
    return type_means_file.read(out, spec)


def within(out):
    with jaxlens.open_run(out) as run:
        return {one.name: run.tally[one.name] for one in definitions.WITHIN}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, total in ours.items():
        np.testing.assert_array_equal(total, theirs[name], err_msg=name, strict=True)


def test_products_of_the_device_are_those_of_the_stored_rows(both):
    with jaxlens.open_run(both) as run:
        layers, vocab = len(run.layer_names), run.corpus.token_counts.shape[1]
        lookup = facts.tables(vocab, run.corpus.token_counts, table(both).means)
        folded = {
            one.name: np.zeros(definitions.shape(one, layers, vocab), np.int64)
            for one in definitions.WITHIN
        }
        for batch in run.batches(fold.NEEDED, rows=1_000):
            values = fold.prepare(batch, run.corpus.documents, run.spec["plan"]["length"])
            fold.add(folded, values, np.ones(len(batch["token"]), bool), lookup)
        assert all(total.any() for total in folded.values())
    assert_equal(within(both), folded)


@pytest.mark.usefixtures("few")
def test_products_depend_on_neither_shards_nor_lanes_nor_rows(
    tiny, texts, both, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "choose", lambda chosen: jax.devices()[:1] * 2)
    how = BOTH | STUDY | {"store.shard_tokens": 384, "devices": 2}
    sweep.run(configure(tiny, texts, tmp_path / "other", **how))
    for mine, theirs in zip(table(tmp_path / "other").means, table(both).means, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert_equal(within(tmp_path / "other"), within(both))


def test_the_table_is_of_a_sample_of_the_contexts(both):
    with jaxlens.open_run(both) as run:
        counted = (run["position"][:] > 0).sum()
    with type_means_file.reading.open_sealed(both / TABLE) as contents:
        assert 400 < contents.attribute("positions") <= 832 < counted
        assert contents.attribute("columns").split()[-1] == "copied"


def test_the_table_is_the_means_of_its_text(studied):
    """A sample of the whole text, so that its sums are those of the run."""
    with jaxlens.open_run(studied / "trained") as run:
        expected = type_means.type_means.of_sums(run.tally, run.corpus.token_counts)
        seen = run.tally["type_count"] > 0
    found = table(studied / "trained").means
    same = [name.startswith(("position", "room", "later", "ln_")) for name in axes.WITHIN]
    assert found.column[seen][:, same].tolist() == expected.column[seen][:, same].tolist()
    # A window's last tokens do not know what follows it, and the model's steps hold other lines.
    assert np.abs(found.column - expected.column)[seen].mean() < 0.01 * bins.ONE
    assert np.abs(found.ln_rank - expected.ln_rank)[seen].max() < 0.01 * bins.ONE


@pytest.mark.long
def test_a_study_without_rows_has_the_slopes_of_the_rows_and_intervals(both, tiny, texts, tmp_path):
    sweep.run(configure(tiny, texts, tmp_path / "none", **BOTH | STUDY))
    with_rows, without = inputs.load(both), inputs.load(tmp_path / "none")
    assert with_rows.within.own_means and not without.within.own_means
    for of, names, name in (
        (columns.of_rank, columns.NAMES, "surprisal"),
        (columns.of_copied, columns.RANKED, "ln_rank_input"),
    ):
        ours, theirs = (
            columns.within_type.slope(*of(run, 1), names, name) for run in (without, with_rows)
        )
        assert ours.value == theirs.value and ours.clusters == theirs.clusters
        assert 0.5 < (ours.high - ours.low) / (theirs.high - theirs.low) < 2


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.long
def test_a_run_killed_between_table_and_spec_goes_on_with_its_table(
    tiny, texts, tmp_path, monkeypatch
):
    config = configure(tiny, texts, tmp_path / "run", **STUDY)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_directory, "create_run", killed)
        sweep.run(config)
    assert (tmp_path / "run" / TABLE).exists() and not (tmp_path / "run" / "RUN.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(type_means, "_make", killed)
        assert sweep.run(config).finished
    sweep.run(dataclasses.replace(config, out=str(tmp_path / "whole")))
    one, two = (digest(tmp_path / name, derived=False) for name in ("run", "whole"))
    assert one == two and len(one) > 2
    assert verify.verify(tmp_path / "run").ok


def test_a_table_left_by_other_settings_is_refused(tiny, texts, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_directory, "create_run", killed)
        sweep.run(configure(tiny, texts, out, **STUDY, **{"corpus.limit": 1_000}))
    told = refused(capsys, 2, *flags(tiny, texts, out), *STUDIED)
    assert TABLE in told and "other settings" in told
    (out / TABLE).write_bytes(b"damaged")
    assert f"remove {out / TABLE}" in refused(capsys, 2, *flags(tiny, texts, out), *STUDIED)


# As STUDY, whose step is compiled already.
QUANTITIES = ",".join(STUDY["store.quantities"])
STUDIED = ("--tallies", "study", "--rows", "none", "--set", f"store.quantities=[{QUANTITIES}]")


@pytest.mark.usefixtures("frozen")
def test_a_worker_that_joins_reads_the_table(tiny, texts, both, tmp_path):
    out = shutil.copytree(both, tmp_path / "run")
    for path in (*(out / "shards").glob("part-00001.*"), out / "MANIFEST", out / "summary.h5"):
        path.unlink()
    assert sweep.run(configure(tiny, texts, out, **BOTH)).computed == 1
    assert digest(out) == digest(both)


@pytest.mark.usefixtures("frozen")
def test_a_run_that_lost_its_spec_finds_its_table(tiny, texts, both, tmp_path):
    out = shutil.copytree(both, tmp_path / "run")
    (out / "RUN.json").unlink()
    assert sweep.run(configure(tiny, texts, out, **BOTH)).computed == 0
    assert digest(out) == digest(both)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "how",
    [
        "damaged",
        *(pytest.param(how, marks=pytest.mark.long) for how in ("missing", "of another run")),
    ],
)
def test_a_table_that_is_not_the_run_s_is_one_error_with_a_hint(
    how, tiny, texts, both, studied, tmp_path, capsys
):
    out = shutil.copytree(both, tmp_path / "run")
    (out / "shards" / "part-00001.h5").unlink()
    if how == "missing":
        (out / TABLE).unlink()
    elif how == "damaged":
        data = bytearray((out / TABLE).read_bytes())
        data[len(data) // 2] ^= 1
        (out / TABLE).write_bytes(data)
    else:
        shutil.copy(studied / "trained" / TABLE, out / TABLE)
    found = dict(verify.verify(out).damaged)
    assert found[TABLE].startswith("is missing" if how == "missing" else "is damaged")
    fast = dict(verify.verify(out, "fast").damaged)
    assert (TABLE in fast) == (how == "missing")
    with pytest.raises(errors.DataError, match=TABLE) as refusal:
        sweep.run(configure(tiny, texts, out, **BOTH))
    assert "copy" in refusal.value.hint
    told = refused(capsys, 65, "repair", out, "--model", tiny)
    assert TABLE in told and "restore it from a copy" in told
    shutil.copy(both / TABLE, out / TABLE)
    assert run_cli("repair", out, "--model", tiny, "--set", "devices=1") == 0
    assert digest(out) == digest(both)


def test_means_are_taken_from_a_previous_run(tiny, texts, studied, tmp_path, monkeypatch, capsys):
    def sampled(*_):
        raise AssertionError("a previous run is named")

    monkeypatch.setattr(type_means, "_of_sample", sampled)
    out, more = tmp_path / "run", ("--set", "store.shard_tokens=2048", "--limit", "2000")
    command = *flags(tiny, texts, out), *STUDIED, *more
    source = shutil.copytree(studied / "trained", tmp_path / "source")
    assert run_cli(*command, "--type-means", source) == 0
    with jaxlens.open_run(studied / "trained") as run, jaxlens.open_run(out) as other:
        expected = type_means.type_means.of_sums(run.tally, other.corpus.token_counts)
    for mine, theirs in zip(table(out).means, expected, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    # What has begun has its table, wherever the previous run is now; others are not ignored.
    shutil.rmtree(source)
    before = digest(out, derived=False)
    for again in (("--type-means", source), ("--type-means", studied / "trained"), ()):
        assert run_cli(*command, *again) == 0
    capsys.readouterr()
    for other in (studied / "shuffled", tmp_path / "gone"):
        told = refused(capsys, 2, *command, "--type-means", other)
        assert f"type_means names {other}" in told and "leave it out" in told
    assert digest(out, derived=False) == before


def test_a_table_that_is_alone_is_that_of_the_named_run_or_the_hint_says_what_to_remove(
    tiny, texts, studied, tmp_path, capsys, monkeypatch
):
    out, trained, other = tmp_path / "run", studied / "trained", studied / "shuffled"
    command = *flags(tiny, texts, out), *STUDIED, "--limit", "2000", "--type-means"
    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "create_run", killed)
        assert run_cli(*command, trained) == 130
    capsys.readouterr()
    assert (out / TABLE).exists() and not (out / "RUN.json").exists()
    told = refused(capsys, 2, *command, other)
    assert f"type_means names {other}" in told and f"remove {out / TABLE}" in told
    before = (out / TABLE).read_bytes()
    assert run_cli(*command, trained) == 0
    assert (out / TABLE).read_bytes() == before
    told = refused(capsys, 2, *command, other)
    assert f"type_means names {other}" in told and "leave it out" in told


@pytest.mark.long
def test_verify_and_repair_say_that_a_table_must_be_restored(both, tiny, tmp_path, capsys):
    out = shutil.copytree(both, tmp_path / "run")
    data = bytearray((out / TABLE).read_bytes())
    data[len(data) // 2] ^= 1
    (out / TABLE).write_bytes(data)
    for command in (("verify", out), ("repair", out, "--model", tiny)):
        told = refused(capsys, 65, *command)
        assert f"hint: {TABLE}: restore it from a copy, or begin anew" in told
        assert "jaxlens repair" not in told and "jaxlens verify" not in told


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("random-1", "another model"),
        ("plain", "another decoder"),
        ("basic", "no sums by token type"),
    ],
)
def test_other_runs_are_refused_by_name(
    source, why, tiny, texts, swept, studied, decoded, tmp_path, capsys
):
    runs = {"random-1": studied / "random-1", "plain": decoded / "trained", "basic": swept}
    command = *flags(tiny, texts, tmp_path / "run"), *STUDIED, "--type-means", runs[source]
    told = refused(capsys, 2, *command)
    assert why in told and str(runs[source]) in told
    assert not (tmp_path / "run" / "RUN.json").exists()


def test_a_run_that_subtracts_no_means_takes_none(tiny, texts, studied, tmp_path, capsys):
    command = *flags(tiny, texts, tmp_path / "run"), "--type-means", studied / "trained"
    assert "subtracts no means" in refused(capsys, 2, *command)


def test_a_dry_run_prints_the_size_of_the_table(tiny, texts, tmp_path, capsys):
    assert run_cli(*flags(tiny, texts, tmp_path / "run"), *STUDIED, "--dry-run") == 0
    # 4,096 token types, 30 columns and 3 layers, 4 bytes each.
    assert "means of types 528 KiB" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run").exists()
