"""Counts that runs over parts of a corpus share, by which rarity is defined."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from sweeps import EVERYTHING, configure, digest, flags, refused, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.store import layout, token_counts_file, verify
from jaxlens.study import fold, inputs
from jaxlens.sweep import repair
from jaxlens.sweep import run as sweep
from jaxlens.tally import bins

TABLE = "token_counts.h5"
HOW = EVERYTHING | {"store.shard_tokens": 8192}


@pytest.fixture(scope="module")
def folder(tiny, texts, tmp_path_factory):
    """Two parts of a text, tokenised, and a run over the first by the counts of both."""
    folder = tmp_path_factory.mktemp("shared")
    lines = texts.read_text().splitlines()
    for name, part in (("a", lines[:30]), ("b", lines[30:])):
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
        words = ("tokenize", "--model", tiny, "--corpus", folder / f"{name}.jsonl")
        assert run_cli(*words, "--out", folder / name) == 0
    assert sweep.run(shared(tiny, folder, folder / "a")).finished
    return folder


def shared(tiny, folder, out, names=("a", "b"), **more):
    named = {"token_counts": [str(folder / name) for name in names]}
    return configure(tiny, folder / "a.jsonl", out, **HOW | named | more)


def counts_of(folder, name):
    arrays = layout.token_path(folder / name, layout.TOKEN_INDEX)
    return token_counts_file.reading.read_arrays(arrays)[0]["token_counts"]


def test_rarity_is_by_the_counts_of_all_parts_on_the_device_and_offline(folder):
    total = counts_of(folder, "a") + counts_of(folder, "b")
    with jaxlens.open_run(folder / "a") as run:
        np.testing.assert_array_equal(token_counts_file.of_run(run), total)
        assert (run.corpus.token_counts != total).any()
        folded = fold.of_rows(run)
        for name, tally in folded.items():
            np.testing.assert_array_equal(run.tally[name], tally, err_msg=name)
        expected = np.zeros(bins.FREQUENCY_BINS, np.int64)
        for batch in run.batches():
            # The definition: by the counts of those documents that are in the other fold.
            used = (batch["position"] > 0) & ~np.isnan(batch["surprisal"])
            other = total[1 - batch["fold"][used], batch["token"][used]]
            of_fold = total.sum(1)[1 - batch["fold"][used]]
            rarity = -np.log((other + 0.5) / (of_fold + total.shape[1] / 2))
            expected += np.bincount(np.minimum(rarity.astype(int), 15), minlength=16)
        np.testing.assert_array_equal(run.tally["frequency_count"][0, :, 0], expected)
    np.testing.assert_array_equal(inputs.load(folder / "a").token_counts, total)


def test_the_order_of_the_parts_changes_no_byte_and_other_counts_do(folder, tiny, tmp_path):
    assert sweep.run(shared(tiny, folder, tmp_path / "again", ("b", "a"))).finished
    assert digest(tmp_path / "again") == digest(folder / "a")
    spec = json.loads((folder / "a" / "RUN.json").read_bytes())
    own = configure(tiny, folder / "a.jsonl", tmp_path / "own", **HOW)
    assert sweep.run(own).finished
    without = json.loads((tmp_path / "own" / "RUN.json").read_bytes())
    assert spec == without | {"token_counts": spec["token_counts"]}
    assert not (tmp_path / "own" / TABLE).exists()


def test_a_run_that_has_begun_keeps_its_counts(folder, tiny, tmp_path):
    out = shutil.copytree(folder / "a", tmp_path / "a")
    (out / "shards" / "part-00000.h5").unlink()
    (out / "MANIFEST").unlink()
    resumed = shared(tiny, folder, out)
    gone = dataclasses.replace(resumed, token_counts=())  # as the parts may be
    reversed_ = dataclasses.replace(resumed, token_counts=resumed.token_counts[::-1])
    for config in (gone, resumed, reversed_):
        assert sweep.run(config).finished
        assert digest(out) == digest(folder / "a")
    with pytest.raises(errors.ConfigError, match="has begun with other counts"):
        sweep.run(dataclasses.replace(resumed, token_counts=(str(folder / "b"),)))
    shutil.copytree(folder / "b" / "tokens", tmp_path / "b" / "tokens")
    basic = configure(tiny, folder / "b.jsonl", tmp_path / "b", **{"store.rows": "core"})
    assert sweep.run(basic).finished
    late = dataclasses.replace(basic, token_counts=resumed.token_counts)
    with pytest.raises(errors.ConfigError, match="has begun with the counts of its own text"):
        sweep.run(late)


def test_counts_that_were_left_by_a_kill_are_taken_or_refused(folder, tiny, tmp_path):
    for name, told in (("a", None), ("b", "holds other counts")):
        out = tmp_path / name
        out.mkdir()
        own = token_counts_file.encode(counts_of(folder, "b"))
        data = (folder / "a" / TABLE).read_bytes() if told is None else own.data
        (out / TABLE).write_bytes(data)
        if told is None:
            assert sweep.run(shared(tiny, folder, out)).finished
            assert digest(out) == digest(folder / "a")
        else:
            with pytest.raises(errors.ConfigError, match=told):
                sweep.run(shared(tiny, folder, out))
            assert not (out / "RUN.json").exists()


def test_a_damaged_table_is_found_and_no_run_goes_on_without_it(folder, tiny, tmp_path, capsys):
    out = shutil.copytree(folder / "a", tmp_path / "a")
    raw = (out / TABLE).read_bytes()
    for damage in (raw[:-1], raw[:100] + bytes([raw[100] ^ 1]) + raw[101:], b"", None):
        (out / TABLE).unlink(missing_ok=True)
        if damage is not None:
            (out / TABLE).write_bytes(damage)
        assert [name for name, _ in verify.verify(out).damaged] == [TABLE]
        with pytest.raises(errors.DataError, match=r"token_counts\.h5"):
            inputs.load(out)
    assert TABLE in refused(capsys, 65, "verify", out)
    (out / "shards" / "part-00000.h5").unlink()
    with pytest.raises(errors.DataError, match=r"token_counts\.h5 is missing"):
        repair.repair(out, shared(tiny, folder, out))
    (out / TABLE).write_bytes(raw)
    assert not repair.repair(out, shared(tiny, folder, out)).left
    assert digest(out) == digest(folder / "a")


def test_parts_that_are_no_token_files_are_refused(folder, tiny, tmp_path, capsys):
    command = (*flags(tiny, folder / "a.jsonl", tmp_path / "out"), "--tallies", "study")
    told = refused(capsys, 66, *command, "--token-counts", folder / "a", tmp_path / "nothing")
    assert "nothing" in told and "jaxlens tokenize" in told
    told = refused(capsys, 2, *command, "--token-counts", folder / "a", folder / "a")
    assert "the same tokens" in told
    assert not (tmp_path / "out" / "RUN.json").exists()


def test_a_null_run_must_have_the_same_counts(folder):
    with jaxlens.open_run(folder / "a") as run:
        trained = inputs.run_info(run)
    null = dataclasses.replace(trained, kind="shuffled")
    inputs.require_comparable(trained, null)
    own = {name: section for name, section in null.spec.items() if name != "token_counts"}
    with pytest.raises(errors.ConfigError, match="another table of token counts"):
        inputs.require_comparable(trained, dataclasses.replace(null, spec=own))
