import dataclasses
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import example

from jaxlens import errors
from jaxlens.files import temporary
from jaxlens.store import (
    commit,
    finalize,
    layout,
    manifest,
    reader,
    records,
    run_directory,
    shards,
    summary,
    untrusted,
    verify,
)
from jaxlens.store.hdf5 import images as image
from jaxlens.store.hdf5 import reading

SHARDS, ROWS = 3, 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = tmp_path_factory.mktemp("run") / "whole"
    example.write_run(made, SHARDS, ROWS)
    return made


@pytest.fixture
def out(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def named(out, level="full"):
    return {name for name, _ in verify.verify(out, level).damaged}


def part(shard, kind="h5"):
    return f"shards/part-{shard:05d}.{kind}"


@pytest.mark.parametrize("level", ["fast", "full"])
def test_sound_run_has_no_findings(whole, level):
    report = verify.verify(whole, level)
    assert report.ok and report.damaged == ()
    assert (report.shards, report.rows) == (SHARDS, SHARDS * ROWS)


def test_run_of_tallies_alone_is_sound(tmp_path):
    example.write_run(tmp_path, 2, ROWS, "none")
    assert verify.verify(tmp_path) == verify.Report(2, 0, ())


def test_every_truncation_is_found(out, tmp_path):
    place = example.place(example.spec(SHARDS, ROWS), 2, SHARDS, ROWS)
    rows = {"rank_input": np.zeros((ROWS, example.N_LAYERS), np.uint16)}
    large = {"token_count": np.random.default_rng(1).integers(0, 2**40, 12_000)}
    raw = bytes(image.shard_image(place, rows, large, example.LAYER_NAMES))
    assert len(raw) >= 1 << 16
    commit.discard(out, 2)
    commit.publish_shard(out, place, memoryview(raw), ROWS, example.FAST)
    path = layout.shard_path(out, 2)
    sizes = [0, 1, 7, *range(4096, len(raw), 4096), len(raw) - 1]
    for size in sizes:
        path.write_bytes(raw[:size])
        for level in ("fast", "full"):
            assert (part(2), f"has {size} bytes, its record says {len(raw)}") in verify.verify(
                out, level
            ).damaged
        assert shards.missing_shards(out, SHARDS, place.spec_hash, "fast") == [2]
        with pytest.raises(errors.DataError, match="part-00002"):
            reader.open_run(out)
    path.write_bytes(raw + b"\0")
    assert part(2) in named(out, "fast")


@pytest.mark.parametrize("level", ["fast", "full"])
def test_deleted_files_are_named(out, level):
    names = [part(0), part(1, "json"), "MANIFEST", "tokens/index.h5", "tokens/TOKENS.json"]
    for name in names:
        raw = (out / name).read_bytes()
        (out / name).unlink()
        report = verify.verify(out, level)
        assert [where for where, _ in report.damaged] == [name]
        assert "missing" in report.damaged[0][1]
        (out / name).write_bytes(raw)


@pytest.mark.parametrize("left", ["summary.h5", "index.h5", "MANIFEST"])
def test_missing_derived_files_are_named_where_one_is_left(out, left):
    missing = {"summary.h5", "index.h5", "MANIFEST"} - {left}
    for name in missing:
        (out / name).unlink()
    assert named(out) == missing
    finalize.finalize(out)
    assert verify.verify(out).ok


def unfinished(out, *absent):
    """Makes a run one that has not come to these shards."""
    for name in layout.DERIVED:
        (out / name).unlink()
    for shard in absent:
        commit.discard(out, shard)


@pytest.mark.parametrize("level", ["fast", "full"])
@pytest.mark.parametrize("absent", [(), (1,), (1, 2), (0, 1, 2)])
def test_a_run_that_is_going_on_is_not_finished_and_not_damaged(out, level, absent):
    unfinished(out, *absent)
    report = verify.verify(out, level)
    assert report.damaged == () and report.sound and not report.finished and not report.ok
    assert (report.shards, report.missing) == (SHARDS, len(absent))
    assert report.rows == (SHARDS - len(absent)) * ROWS
    assert untrusted.verify_untrusted(out, level) == report


def test_a_run_that_has_only_begun_is_not_damaged(out):
    unfinished(out, *range(SHARDS))
    (out / "tokens" / "TOKENS.json").unlink()  # which comes last of the token file
    assert verify.verify(out) == verify.Report(SHARDS, 0, (), SHARDS, False)


def test_a_record_whose_shard_is_on_its_way_is_not_damage(out):
    unfinished(out, 2)
    layout.shard_path(out, 1).unlink()
    assert verify.verify(out) == verify.Report(SHARDS, ROWS, (), 2, False)


@pytest.mark.parametrize("level", ["fast", "full"])
def test_damage_of_what_is_there_of_an_unfinished_run_is_named(out, level):
    unfinished(out, 2)
    path = layout.shard_path(out, 1)
    path.write_bytes(path.read_bytes()[:-1])
    layout.sidecar_path(out, 0).unlink()
    (out / "tokens" / "index.h5").unlink()
    report = verify.verify(out, level)
    assert {name for name, _ in report.damaged} == {part(1), part(0, "json"), "tokens/index.h5"}
    assert not report.finished and report.missing == 1


def test_a_finished_run_that_lost_shards_is_damaged(out):
    commit.discard(out, 1)
    for name in ("MANIFEST", "index.h5"):
        (out / name).unlink()
    report = verify.verify(out)
    assert (part(1), "is missing") in report.damaged and report.finished and not report.missing


@pytest.mark.parametrize("sidecars", [False, True])
def test_swapped_shards_are_named(out, sidecars):
    kinds = ["h5", "json"] if sidecars else ["h5"]
    for kind in kinds:
        (out / part(0, kind)).rename(out / "aside")
        (out / part(1, kind)).rename(out / part(0, kind))
        (out / "aside").rename(out / part(1, kind))
    kind = "json" if sidecars else "h5"
    assert named(out) == {part(0, kind), part(1, kind)}


@pytest.mark.parametrize("sidecars", [False, True])
def test_duplicated_shard_is_named(out, sidecars):
    for kind in ["h5", "json"] if sidecars else ["h5"]:
        shutil.copy(out / part(0, kind), out / part(2, kind))
    assert named(out) == {part(2, "json" if sidecars else "h5")}


def test_shard_of_another_run_is_named(out, tmp_path):
    example.write_run(tmp_path / "other", SHARDS, ROWS, more={"seed": 1})
    for kind in ("h5", "json"):
        shutil.copy(tmp_path / "other" / part(1, kind), out / part(1, kind))
    assert named(out, "fast") == named(out) == {part(1, "json")}


def test_spec_of_another_run_is_named_rather_than_every_shard(out):
    (out / "RUN.json").write_bytes(example.spec(SHARDS, ROWS, seed=1))
    assert named(out) == {"RUN.json"}


def test_consistent_record_of_other_contents_is_found_by_the_manifest(out):
    spec_bytes = example.spec(SHARDS, ROWS)
    data = example.compute_rows(9, ROWS)
    place = example.place(spec_bytes, 1, SHARDS, ROWS)
    made = image.shard_image(place, data, example.compute_tallies(1), example.LAYER_NAMES)
    commit.discard(out, 1)
    commit.publish_shard(out, place, made, ROWS)
    assert (part(1), "is not what MANIFEST lists") in verify.verify(out, "fast").damaged
    assert named(out) == {part(1)}


def test_gap_between_shards_is_named(out):
    example.replace_record(out, 1, token_start=9, rows=7)
    assert (part(1), "starts at token 9, not at 8") in verify.verify(out, "fast").damaged


def test_tokens_without_rows_are_named(out):
    path = out / "tokens/TOKENS.json"
    entry = records.parse_tokens(path.read_bytes(), path.name)
    path.write_bytes(records.encode_tokens(dataclasses.replace(entry, n_tokens=25)))
    assert (part(2), "ends at token 24 of 25") in verify.verify(out).damaged


def test_foreign_files_among_the_shards_are_named(out):
    foreign = ["part-00003.h5", "part-00000.h5.bak", "notes.txt", ".hidden"]
    for name in foreign:
        (out / "shards" / name).write_bytes(b"")
    under_way = f".part-00000.h5.{temporary._machine()}-1-{'0' * 16}.tmp"
    (out / "shards" / under_way).write_bytes(b"")
    assert named(out, "fast") == named(out) == {f"shards/{name}" for name in foreign}


def test_stale_summary_of_the_same_run_is_named(out, tmp_path):
    data = {"n_shards": 3, "n_tokens": 24, "n_rows": 24, "spec_hash": "a" * 64}
    tallies = example.compute_tallies(5)
    labels = summary.axis_labels(tallies)
    made = image.summary_image(data, tallies, example.LAYER_NAMES, labels)
    (out / "summary.h5").write_bytes(reading.seal(made))
    assert named(out) == {"summary.h5"}


def test_derived_files_laid_out_by_another_version_of_hdf5_are_sound(out):
    for name in ("summary.h5", "index.h5"):
        path = out / name
        image = path.read_bytes()[: -reading.SEAL_BYTES]
        path.write_bytes(reading.seal(image + bytes(100)))
    assert verify.verify(out).ok


def test_run_without_any_shard_has_one_finding_for_all(tmp_path):
    run_directory.create_run(tmp_path, example.spec(10**7))
    assert verify.verify(tmp_path).missing == 10**7
    (tmp_path / "MANIFEST").touch()
    report = verify.verify(tmp_path)
    assert ("shards", "holds none of 10000000 shards") in report.damaged


def test_a_run_without_its_spec_is_reported_and_no_run_at_all_is_missing(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(errors.MissingError):
            verify.verify(folder)
    (tmp_path / "shards").mkdir()
    assert ("RUN.json" in named(tmp_path)) and not verify.verify(tmp_path).ok


FILES = ["RUN.json", "MANIFEST", "summary.h5", "index.h5", part(0), part(0, "json")]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(FILES), raw=st.binary(max_size=300), at=st.integers(0, 10_000))
def test_garbage_anywhere_is_a_finding_never_a_crash(out, name, raw, at):
    path = out / name
    before = path.read_bytes()
    garbage = raw if at % 2 else before[:at] + raw + before[at + len(raw) :]
    path.write_bytes(garbage)
    for level in ("fast", "full"):
        report = verify.verify(out, level)
        assert level == "fast" or garbage == before or not report.ok
    path.write_bytes(before)


def say_otherwise(path, change):
    """Changes a sealed file, and seals it again."""
    raw = path.read_bytes()[: -reading.SEAL_BYTES]
    path.write_bytes(raw)
    with h5py.File(path, "r+") as file:
        change(file)
    path.write_bytes(reading.seal(path.read_bytes()))


def rename(file):
    file.move("mean_entropy", "mean_entropies")


def retype(file):
    old = file["tally/token_count"][:].astype("u8")
    del file["tally/token_count"]
    file["tally/token_count"] = old


def relabel(file):
    file["mean_entropy"].attrs["units"] = "bit"


def entitle(file):
    file.attrs["title"] = "mine"


def count(file):
    file["tally/token_count"][3] += 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (rename, "mean_entropies, mean_entropy is not"),
        (retype, "tally/token_count is not"),
        (relabel, "mean_entropy is not"),
        (entitle, "the attributes is not"),
        (count, "tally/token_count is not"),
    ],
)
def test_sealed_summary_that_says_otherwise_is_named(out, change, what):
    say_otherwise(out / "summary.h5", change)
    ((name, found),) = verify.verify(out).damaged
    assert name == "summary.h5" and what in found


def test_sealed_index_whose_rows_are_those_of_other_shards_is_named(out):
    def turn(file):
        old = file["kl_final"]
        made = h5py.VirtualLayout(old.shape, old.dtype)
        for number, source in enumerate(reversed(old.virtual_sources())):
            part = h5py.VirtualSource(source.file_name, source.dset_name, (ROWS, 4))
            made[number * ROWS : (number + 1) * ROWS] = part
        attributes = dict(old.attrs)
        del file["kl_final"]
        file.create_virtual_dataset("kl_final", made, fillvalue=np.nan)
        for key in ("units", "long_name", "coordinates"):
            file["kl_final"].attrs[key] = attributes[key]

    say_otherwise(out / "index.h5", turn)
    ((name, found),) = verify.verify(out).damaged
    assert name == "index.h5" and "kl_final is not what follows" in found


def test_index_that_should_not_be_there_is_named(out, monkeypatch):
    monkeypatch.setattr(finalize, "MAX_INDEXED", 2)
    assert verify.verify(out).damaged == (("index.h5", "it is out of date"),)


def test_missing_shards_beyond_a_hundred_are_counted(tmp_path):
    with pytest.raises(errors.MissingError):
        example.write_run(tmp_path, 1, ROWS, more={"plan": {"n_shards": 150}})
    assert verify.verify(tmp_path).missing == 149
    (tmp_path / "MANIFEST").touch()
    damaged = verify.verify(tmp_path).damaged
    assert (part(100), "is missing") in damaged and (part(101), "is missing") not in damaged
    assert ("shards", "49 more shards are missing") in damaged


def recommit(out, shard, change, **changes):
    """Changes a shard and all that says what it is."""
    with h5py.File(layout.shard_path(out, shard), "r+") as file:
        change(file)
    entry = layout.read_record(out, shard)
    place = records.ShardRange(**vars(entry.shard_range()) | changes)
    data = layout.shard_path(out, shard).read_bytes()
    layout.sidecar_path(out, shard).write_bytes(
        records.encode(records.record(place, entry.rows, data))
    )
    entries = [layout.read_record(out, n) for n in range(SHARDS)]
    (out / "MANIFEST").write_bytes(example.manifest(place.spec_hash, entries))


def test_rows_with_the_numbers_of_others_are_named(out):
    def renumber(file):
        file["row"][2] = 3

    recommit(out, 1, renumber)
    assert (part(1), "is damaged: its rows are not those of its token range") in verify.verify(
        out
    ).damaged


def test_shard_of_another_token_file_is_named(out):
    other = "e" * 64
    recommit(out, 1, lambda file: file.attrs.update(tokens_sha256=other), tokens_sha256=other)
    assert (part(1), "comes from another token file") in verify.verify(out, "fast").damaged


def test_shards_of_another_token_file_than_the_one_there_are_named_by_its_record(out):
    other = "e" * 64
    for shard in range(SHARDS):
        recommit(out, shard, lambda f: f.attrs.update(tokens_sha256=other), tokens_sha256=other)
    report = verify.verify(out, "fast")
    assert report.damaged == (("tokens/TOKENS.json", "is of another token file than the shards"),)


def test_rows_of_half_the_tokens_are_named(out):
    example.replace_record(out, 1, rows=4)
    assert (part(1), "has 4 rows for 8 tokens") in verify.verify(out, "fast").damaged


def test_manifest_of_another_run_and_one_that_leaves_a_shard_out_are_named(out):
    table = manifest.read(out, SHARDS)
    spec_hash, entries = table.spec_hash, list(table)
    others = [dataclasses.replace(entry, spec_hash="d" * 64) for entry in entries]
    (out / "MANIFEST").write_bytes(example.manifest("d" * 64, others))
    assert ("MANIFEST", "belongs to another run, dddddddd...") in verify.verify(out).damaged
    for some in (entries[:2], entries[1:], entries[::-1]):
        (out / "MANIFEST").write_bytes(example.manifest(spec_hash, some))
        assert ("MANIFEST", "does not list every shard once, in order") in verify.verify(
            out
        ).damaged


def test_token_record_that_promises_other_tokens_is_named(out):
    path = out / "tokens/TOKENS.json"
    entry = records.parse_tokens(path.read_bytes(), path.name)
    path.write_bytes(records.encode_tokens(dataclasses.replace(entry, dtype="uint32")))
    assert ("tokens/TOKENS.json", "promises 24 tokens of uint32") in verify.verify(out).damaged


def test_token_file_that_is_not_that_of_the_spec_is_named(tmp_path):
    example.write_run(tmp_path, 1, ROWS, more={"corpus": {"sha256": "d" * 64}})
    assert verify.verify(tmp_path).damaged == (
        ("tokens/TOKENS.json", "sha256 is not that of RUN.json"),
    )


def commit_as(out, spec_bytes, shard, version):
    """Commits a shard anew in another format."""
    place = example.place(spec_bytes, shard, SHARDS, ROWS)
    data, tallies = example.compute_rows(shard, ROWS), example.compute_tallies(shard)
    how = {"skipped": {"empty": shard}, "version": version}
    made = image.shard_image(place, data, tallies, example.LAYER_NAMES, **how)
    commit.discard(out, shard)
    commit.publish_shard(out, place, made, ROWS, example.FAST)


def test_a_shard_of_another_format_than_the_spec_is_named(out):
    commit_as(out, example.spec(SHARDS, ROWS), 1, version=3)
    finalize.finalize(out)
    assert verify.verify(out).damaged == (
        (part(1), "is damaged: its format is not that of RUN.json"),
    )


def test_a_run_of_an_older_format_is_sound_and_keeps_it(tmp_path):
    spec_bytes = example.spec(SHARDS, ROWS, format_version=3)
    example.write_shards(tmp_path, SHARDS, ROWS, more={"format_version": 3})
    for shard in range(SHARDS):
        commit_as(tmp_path, spec_bytes, shard, version=3)
    finalize.finalize(tmp_path)
    assert verify.verify(tmp_path).ok and shards.stored_format(tmp_path) == 3
    for name in ("summary.h5", "index.h5", part(0)):
        with h5py.File(tmp_path / name) as file:
            assert file.attrs["format_version"] == 3
            assert not any("_FillValue" in file[name].attrs for name in file)


def test_a_format_that_is_unknown_is_refused(tmp_path):
    example.write_shards(tmp_path, SHARDS, ROWS, more={"format_version": 99})
    with pytest.raises(errors.DataError, match="format 99 is unknown here"):
        finalize.finalize(tmp_path)
    assert shards.stored_format(tmp_path / "nothing") is None


@pytest.mark.parametrize("raw", [b"", b"{", b'{"measured":1e999}', b'{"odd":1}', b"[]"])
def test_notes_that_are_damaged_are_named(out, raw):
    folder = out / "environment"
    (folder / "sound.json").write_bytes(records.encode_note({"measured": {}}))
    (folder / "older.json").write_bytes(b'{"measured":{}}\n')
    (folder / "other.txt").write_bytes(b"mine")
    assert verify.verify(out).ok
    (folder / "worker.json").write_bytes(raw)
    ((name, what),) = verify.verify(out).damaged
    assert name == "environment/worker.json" and "no result depends on it" in what
    assert verify.verify(out, "fast").ok


def test_a_folder_of_notes_that_leads_out_of_the_run_is_named(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (out / "environment").rmdir()
    (out / "environment").symlink_to(tmp_path / "elsewhere")
    ((name, what),) = verify.verify(out).damaged
    assert name == "environment" and "leads out" in what
