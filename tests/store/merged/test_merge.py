"""Merging finished runs: what the totals are equal to, and what is refused."""

import dataclasses
import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest
from store import example, faults
from store.merged import parts
from sweeps import configure

import jaxlens
from jaxlens import config, errors
from jaxlens.files import publish
from jaxlens.store import finalize, type_means_file, verify
from jaxlens.store.merged import merged_spec
from jaxlens.study import fold
from jaxlens.sweep import run as sweep
from jaxlens.tally import bins, definitions, facts


@pytest.fixture(scope="module")
def both(merged, parted):
    """The merged run, and the run over the whole corpus."""
    with jaxlens.open_run(merged / "study") as one, jaxlens.open_run(parted / "study-whole") as two:
        yield one, two


def test_totals_of_parts_are_those_of_the_whole_but_for_drawn_tokens(both):
    merged, whole = both
    assert set(merged.tally) == set(whole.tally)
    compared = 0
    for name, total in whole.tally.items():
        if definitions.BY_NAME[name].merge == "bottom_k":
            continue
        expected = parts.without_drawn(name, total)
        if expected is not None:
            found = parts.without_drawn(name, merged.tally[name])
            np.testing.assert_array_equal(found, expected, err_msg=name, strict=True)
            compared += bool(expected.any())
    assert compared > 35


def test_samples_of_parts_are_those_of_the_whole_with_documents_numbered_on(both):
    merged, whole = both
    place = {text: i for i, text in enumerate(merged.corpus.documents.hash)}
    number = np.array([place[text] for text in whole.corpus.documents.hash])
    for name in ("copies", "controls", "reservoir"):
        expected = parts.numbered(whole.tally[name], number)
        found = merged.tally[name][: len(expected)]
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert len(expected) > 100


def test_totals_are_those_that_follow_from_the_rows_of_all_runs(merged):
    with jaxlens.open_run(merged / "study") as run:
        for name, total in fold.of_rows(run).items():
            np.testing.assert_array_equal(run.tally[name], total, err_msg=name, strict=True)


def test_the_order_of_the_runs_and_merging_step_by_step_change_no_byte(copied):
    folder, runs = copied, [copied / name for name in parts.NAMES]
    expected = parts.tree(copied / "all")
    for order in itertools.islice(itertools.permutations(runs), 1, None, 2):
        jaxlens.merge_runs(folder / "again", order)
        assert parts.tree(folder / "again") == expected
        shutil.rmtree(folder / "again")
    jaxlens.merge_runs(folder / "two", runs[1:])
    jaxlens.merge_runs(folder / "again", [folder / "two", runs[0]])
    assert parts.tree(folder / "again") == expected
    done = jaxlens.merge_runs(folder / "again", runs)
    assert [path.name for path in done.runs] == parts.canonical(folder)
    assert (done.repeated_documents, done.left_out, done.other_counts) == (0, "", False)


def test_merging_again_writes_nothing_and_makes_what_is_missing_or_damaged(copied):
    runs = [copied / name for name in parts.NAMES]
    out, before = copied / "all", parts.tree(copied / "all")
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    jaxlens.merge_runs(out, runs)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    for name in before:
        for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")):
            damage(out / name)
            if name == "RUN.json" and (out / name).exists():
                with pytest.raises(errors.ConfigError, match=r"RUN\.json is of another run") as e:
                    jaxlens.merge_runs(out, runs)
                assert "remove RUN.json" in e.value.hint
                (out / name).unlink()
            (out / "report.html").write_text("of the study, which stays")
            jaxlens.merge_runs(out, runs)
            (out / "report.html").unlink()
            assert parts.tree(out) == before


def test_a_merged_run_can_be_moved_with_its_runs_and_merged_again_from_another_place(copied):
    moved = copied.rename(copied.with_name("moved"))
    with jaxlens.open_run(moved / "all") as run:
        assert run["rank_input"][-5:].min() > 0
    away = (moved / "b").rename(moved.with_name("b"))
    before = parts.tree(moved / "all")
    jaxlens.merge_runs(moved / "all", [moved / "a", away, moved / "c"])
    after = parts.tree(moved / "all")
    assert {name for name in before if before[name] != after[name]} == {"SOURCES.json"}
    assert verify.verify(moved / "all").ok


def attempt(copied, out, disk):
    try:
        jaxlens.merge_runs(out, [copied / name for name in parts.NAMES], disk=disk)
    except (faults.Killed, errors.StorageError) as error:
        return error
    return None


@pytest.mark.parametrize(
    "way", ["killed", *(pytest.param(way, marks=pytest.mark.long) for way in ("full", "broken"))]
)
def test_a_kill_or_a_failing_disk_leaves_no_half_run(copied, way):
    expected, out = parts.tree(copied / "all"), copied / "again"
    log = faults.Faulty()
    attempt(copied, out, log)
    shutil.rmtree(out)
    for at in range(len(log.log)):
        error = attempt(copied, out, faults.Faulty(at, way))
        if (out / "RUN.json").exists():
            with jaxlens.open_run(out) as run:
                assert run.tally["count"].any()
        elif out.exists():
            with pytest.raises(errors.MissingError, match="holds no run"):
                jaxlens.open_run(out)
        assert error or parts.tree(out) == expected
        assert attempt(copied, out, example.FAST) is None
        assert parts.tree(out) == expected
        shutil.rmtree(out)


def test_a_kill_while_runs_that_have_changed_are_merged_again_is_seen(copied):
    """A summary of one state of the runs never goes with the record of another."""
    name = parts.canonical(copied)[0]
    alter(copied / name)
    assert "has changed since" in refusal(
        lambda: jaxlens.open_run(copied / "all")["rank_input"][:5]
    )
    before = (copied / "all" / "summary.h5").read_bytes()
    jaxlens.merge_runs(copied / "all", [copied / name for name in parts.NAMES])
    assert verify.verify(copied / "all").ok
    (copied / "all" / "summary.h5").write_bytes(before)
    assert "is not of these runs" in refusal(lambda: jaxlens.open_run(copied / "all").tally)
    assert [name for name, _ in verify.verify(copied / "all").damaged] == ["summary.h5"]


def alter(run_dir):
    """As if another machine had computed a shard to other bits."""
    path = run_dir / "shards" / "part-00000.h5"
    record = path.with_suffix(".json")
    raw = path.read_bytes() + b"\0"
    path.write_bytes(raw)
    entry = json.loads(record.read_bytes())
    entry |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    record.write_bytes(config.canonical(entry))
    finalize.finalize(run_dir)


def refusal(call):
    with pytest.raises(errors.JaxlensError) as error:
        call()
    assert error.value.hint and "\n" not in error.value.message
    return error.value.message


DIFFERENCES = {
    "lens.temperatures": ([2.0, 1.2, 1.0], "[2.0, 1.5, 1.0] and [2.0, 1.2, 1.0]"),
    "plan.length": (16, "32 and 16"),
    "null.kind": ("shuffled", "'none' and 'shuffled'"),
    "corpus.keep": (["label"], "absent and ['label']"),
    "store.rows": ("full", "'core' and 'full'"),
    "token_counts": ({"sha256": "0" * 64}, "absent and"),
    "format_version": (3, "4 and 3"),
}


@pytest.mark.parametrize("key", DIFFERENCES)
def test_the_first_difference_of_two_specs_is_named_with_its_values(merged, key):
    one, other = (json.loads((merged / name / "RUN.json").read_bytes()) for name in ("a", "b"))
    merged_spec.require_alike([("one", one), ("other", other)])
    section, _, name = key.rpartition(".")
    value, told = DIFFERENCES[key]
    (other[section] if section else other)[name] = value
    message = refusal(lambda: merged_spec.require_alike([("one", one), ("other", other)]))
    assert message.startswith("one and other differ in more than the corpus: " + key)
    assert told in message


@pytest.mark.long
def test_runs_of_another_decoder_are_refused(copied, parted, tiny):
    shutil.copy(parted / "b.jsonl", copied)
    other = parts.sweep(tiny, copied, "other", "b", **parts.BASIC | {"lens.decoder": "plain"})
    for order in ([copied / "a", other, copied / "c"], [other, copied / "all"]):
        told = refusal(lambda order=order: jaxlens.merge_runs(copied / "m", order))
        assert "lens.decoder is" in told and "'final_norm'" in told and "'plain'" in told
    assert not (copied / "m").exists()


def test_runs_of_one_corpus_with_another_size_of_shards_are_not_parts(copied, parted, tiny):
    shutil.copy(parted / "a.jsonl", copied)
    same = parts.sweep(tiny, copied, "same", "a", **parts.BASIC | {"store.shard_tokens": 512})
    told = refusal(lambda: jaxlens.merge_runs(copied / "m", [copied / "a", same]))
    assert "are of the same tokens" in told
    again = [copied / "all", copied / "b"]
    assert "same tokens" in refusal(lambda: jaxlens.merge_runs(copied / "m", again))
    jaxlens.merge_runs(copied / "m", [copied / "b", same, copied / "c"])
    with jaxlens.open_run(copied / "m") as run, jaxlens.open_run(parted / "whole") as whole:
        np.testing.assert_array_equal(run.tally["token_count"], whole.tally["token_count"])
        assert run.spec["store"]["shard_tokens"] is None
        assert run.spec["plan"]["n_shards"] == sum(
            len(list(folder.glob("shards/*.h5"))) for folder in (copied / "b", same, copied / "c")
        )


def test_documents_of_several_runs_are_refused_by_name_or_counted(copied, parted, tiny):
    a, b = ((parted / f"{name}.jsonl").read_text().splitlines() for name in ("a", "b"))
    (copied / "d.jsonl").write_text("\n".join([*b, a[3], a[4], a[3]]))
    runs = [copied / "a", parts.sweep(tiny, copied, "d", **parts.BASIC)]
    told = refusal(lambda: jaxlens.merge_runs(copied / "m", runs))
    # Two of one run, three of the other: a text counts as often as it stands in either.
    assert "5 documents of several runs" in told and "copied/a" in told and "copied/d" in told
    assert "'d3'" in told or "'d4'" in told
    assert not (copied / "m").exists()
    done = jaxlens.merge_runs(copied / "m", runs, allow_repeated=True)
    assert done.repeated_documents == 5
    with jaxlens.open_run(copied / "m") as run:
        assert run.spec["merged"]["repeated_documents"] == 5
        assert run.tally["token_count"].sum() == run.n_tokens == done.n_tokens
    assert verify.verify(copied / "m").ok


@pytest.mark.long
def test_tallies_by_rarity_in_each_text_are_left_out_or_refused(parted, tiny, tmp_path):
    for name in ("a", "b"):
        shutil.copy(parted / f"{name}.jsonl", tmp_path)
        parts.sweep(tiny, tmp_path, name, **parts.STUDIED)
        none = parts.STUDIED | {"store.rows": "none", "store.tallies": "study-2"}
        parts.sweep(tiny, tmp_path, f"none-{name}", name, **none)
    done = jaxlens.merge_runs(tmp_path / "m", [tmp_path / "a", tmp_path / "b"])
    assert done.left_out == "study-2"
    with jaxlens.open_run(tmp_path / "m") as run:
        assert set(run.tally) == {tally.name for tally in definitions.BASIC}
        rarity = facts.tables(4096, run.corpus.token_counts).rarity
        folded, by_rarity = fold.tallies(run), np.zeros(bins.FREQUENCY_BINS, np.int64)
        for batch in run.batches():
            used = (batch["position"] > 0) & ~np.isnan(batch["surprisal"])
            here = rarity[batch["fold"], batch["token"]][used] >> bins.FIXED_POINT_BITS
            by_rarity += np.bincount(here, minlength=bins.FREQUENCY_BINS)
        np.testing.assert_array_equal(folded["frequency_count"][0, :, 0], by_rarity)
    assert verify.verify(tmp_path / "m").ok
    runs = [tmp_path / "none-a", tmp_path / "none-b"]
    assert "do not add up" in refusal(lambda: jaxlens.merge_runs(tmp_path / "n", runs))


def test_means_of_token_types_must_be_equal(parted, merged, tiny, tmp_path):
    shutil.copy(parted / "a.jsonl", tmp_path)
    how = parts.STUDIED | parts.NO_ROWS | parts.counts(parted)
    own = parts.sweep(tiny, tmp_path, "a", **how)
    told = refusal(lambda: jaxlens.merge_runs(tmp_path / "m", [own, parted / "none-rest"]))
    assert "other means of token types" in told
    runs = [parted / "none-a", parted / "none-rest"]
    files = {type_means_file.FILE.path(run).read_bytes() for run in runs}
    assert len(files) == 2  # each names the spec that it was made for
    with jaxlens.open_run(merged / "none") as run:
        assert len(run.spec["merged"]["type_means"]) == 64 and "type_means" not in run.spec
        for name in (one.name for one in definitions.WITHIN):
            totals = [jaxlens.open_run(one).tally[name] for one in runs]
            np.testing.assert_array_equal(run.tally[name], sum(totals))


def test_directories_that_hold_something_else_are_refused(copied):
    runs = [copied / name for name in parts.NAMES]
    for out, told in (
        (copied, "is not empty"),
        (copied / "a", "holds a run of its own"),
        (copied / "a" / "merged", "lies inside a run"),
    ):
        assert told in refusal(lambda out=out: jaxlens.merge_runs(out, runs))
    assert "of another run" in refusal(lambda: jaxlens.merge_runs(copied / "all", runs[1:]))
    assert "at least two" in refusal(lambda: jaxlens.merge_runs(copied / "m", runs[:1]))
    assert "at least two" in refusal(lambda: jaxlens.merge_runs(copied / "m", str(runs[0])))
    told = refusal(lambda: jaxlens.merge_runs(copied / "m", runs, allow_repeated="no"))
    assert "allow_repeated is 'no'" in told


def test_runs_that_are_not_there_or_not_finished_are_refused(copied):
    runs = [copied / "a", copied / "b"]
    nowhere = [copied / "a", copied / "nowhere"]
    assert "holds no run" in refusal(lambda: jaxlens.merge_runs(copied / "m", nowhere))
    (copied / "a" / "MANIFEST").unlink()
    assert "is not finished" in refusal(lambda: jaxlens.merge_runs(copied / "m", runs))
    finalize.finalize(copied / "a")
    shutil.rmtree(copied / "b" / "tokens")
    assert "TOKENS.json" in refusal(lambda: jaxlens.merge_runs(copied / "m", runs))
    assert not (copied / "m").exists()


def test_made_corpora_have_no_parts(tiny, tmp_path):
    made = {"corpus.limit": 600, "store.rows": "core"}
    runs = []
    for number, limit in enumerate((600, 900)):
        how = configure(tiny, "twins:repeats", tmp_path / str(number), **made)
        how = dataclasses.replace(how, corpus=dataclasses.replace(how.corpus, limit=limit))
        assert sweep.run(how).finished
        runs.append(tmp_path / str(number))
    assert "has no parts" in refusal(lambda: jaxlens.merge_runs(tmp_path / "m", runs))


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_of_two_merges_of_other_runs_in_one_place_one_is_refused(copied, moment, monkeypatch):
    """The rival comes before the first, the second or the third file of ours is published."""
    a, b, c = (copied / name for name in parts.NAMES)
    out, publishing, said = copied / "new", publish.publish, []

    def late(path, *more, **options):
        if path.parent == out and len(said) == moment:
            said.append(path.name)
            monkeypatch.setattr(publish, "publish", publishing)
            try:
                jaxlens.merge_runs(out, [a, c])
                said.append("the rival won")
            except errors.ConfigError as error:
                assert "of other merged runs" in error.message
                said.append("the rival was refused")
            monkeypatch.setattr(publish, "publish", late)
        elif path.parent == out and len(said) < moment:
            said.append(path.name)
        return publishing(path, *more, **options)

    monkeypatch.setattr(publish, "publish", late)
    if moment:
        jaxlens.merge_runs(out, [a, b])
    else:
        with pytest.raises(errors.ConfigError, match=r"of other merged runs|of another run"):
            jaxlens.merge_runs(out, [a, b])
    assert said[-1] == ("the rival was refused" if moment else "the rival won")
    assert verify.verify(out).ok


def test_places_that_are_something_else_are_refused_by_what_they_are(copied):
    a, b, _ = (copied / name for name in parts.NAMES)
    (copied / "file").write_text("x")
    (copied / "dangling").symlink_to(copied / "nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(errors.ConfigError, match="not a directory"):
            jaxlens.merge_runs(copied / name, [a, b])
    with pytest.raises(errors.ConfigError, match="holds a run of its own"):
        jaxlens.merge_runs(a, [a, b])
    jaxlens.merge_runs(copied / "new", [a, b])
    (copied / "new" / "shards").mkdir()
    with pytest.raises(errors.ConfigError, match="holds a run of its own"):
        jaxlens.merge_runs(copied / "new", [a, b])


def test_a_run_that_a_link_leads_to_now_is_the_run_that_was_merged(copied):
    a = copied / parts.NAMES[0]
    a.rename(copied / "moved")
    a.symlink_to(copied / "moved")
    assert verify.verify(copied / "all").ok
