"""Runs of several segments: where their shards lie, what is stored of each, what is not read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store import example

from jaxlens import errors
from jaxlens.files import contained, folder
from jaxlens.store import (
    commit,
    finalize,
    layout,
    reader,
    record_table,
    records,
    run_directory,
    segment_builder,
    segment_files,
    segments,
    shards,
    untrusted,
    verify,
)

SHARDS, ROWS, PER_SEGMENT = 10, 4, 4
SPEC = example.spec(SHARDS, ROWS)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(layout, "SHARDS_PER_SEGMENT", PER_SEGMENT)


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path / "run", SHARDS, ROWS)
    return tmp_path / "run"


def manifest(out, segment):
    return layout.segment_path(out, segment, layout.MANIFEST)


def test_each_segment_has_a_directory_with_its_records_and_tallies(out):
    names = {name for name in example.tree(out) if name.startswith("shards/")}
    parts = {f"part-{i:05d}.{kind}" for i in range(SHARDS) for kind in ("h5", "json")}
    assert {os.path.basename(name) for name in names} == parts | {"MANIFEST", "summary.h5"}
    assert {"shards/part-00003.h5", "shards/00001/part-00004.h5", "shards/00002/MANIFEST"} <= names
    assert len(names) == 2 * SHARDS + 2 * 3 and "shards/00000" not in map(os.path.dirname, names)
    assert verify.verify(out).ok and verify.verify(out, "fast").ok


def test_rows_and_tallies_are_those_of_all_shards(out):
    rows = [example.compute_rows(shard, ROWS)["kl_final"] for shard in range(SHARDS)]
    totals = [example.compute_tallies(shard) for shard in range(SHARDS)]
    with reader.open_run(out) as run:
        np.testing.assert_array_equal(run["kl_final"][:], np.concatenate(rows))
        for name, total in run.tally.items():
            np.testing.assert_array_equal(total, sum(part[name] for part in totals))
        (out / "summary.h5").unlink()
    with reader.open_run(out) as run:  # from the segments
        for name, total in run.tally.items():
            np.testing.assert_array_equal(total, sum(part[name] for part in totals))


def test_neither_finalize_nor_opening_reads_a_shard_where_segments_are_stored(out, monkeypatch):
    before = example.tree(out)
    for name in layout.DERIVED:
        (out / name).unlink(missing_ok=True)
    opened = []
    open_shard = shards.open_shard
    monkeypatch.setattr(
        shards, "open_shard", lambda *a, **k: opened.append(a) or open_shard(*a, **k)
    )
    finalize.finalize(out)
    reader.open_run(out).close()
    assert example.tree(out) == before and not opened
    manifest(out, 1).unlink()
    finalize.finalize(out)
    assert example.tree(out) == before
    assert [entry.shard for _, entry, *_ in opened] == [4, 5, 6, 7]


def test_lost_or_damaged_files_of_segments_are_named_and_rebuilt(out):
    before = example.tree(out)
    for name in ("shards/00001/MANIFEST", "shards/summary.h5", "shards/00002/summary.h5"):
        for damage in (b"", before[name][:-1], before[name][:100] + b"\xff" + before[name][101:]):
            (out / name).write_bytes(damage)
            assert name in dict(verify.verify(out).damaged)
            finalize.finalize(out)
            assert example.tree(out) == before
        (out / name).unlink()
        assert name in dict(verify.verify(out).damaged)
        finalize.finalize(out)
        assert example.tree(out) == before


def test_a_look_at_a_run_takes_at_most_four_system_calls_a_shard(out, monkeypatch):
    calls = []

    def counted(name):
        act = getattr(os, name)
        return lambda *a, **k: calls.append(name) or act(*a, **k)

    (out / "shards" / "00001" / "MANIFEST").unlink()
    for name in ("open", "read", "fstat", "stat", "lstat", "close", "readlink"):
        monkeypatch.setattr(os, name, counted(name))
    run_hash = layout.read_spec(out).hash
    looks = []
    for segment in (1, 2):
        calls.clear()
        segments.open_folder(out, segment).close()
        of_folder = len(calls)  # its own path is resolved, and it is opened, once
        segments.scan_segment(out, segment, SHARDS, run_hash)
        looks.append(len(calls) - 2 * of_folder)
    monkeypatch.undo()
    monkeypatch.setattr(layout, "SHARDS_PER_SEGMENT", PER_SEGMENT)
    assert looks[0] <= 4 * 4 + 1  # four shards, and the attempt to open a manifest
    assert looks[1] <= 1 * 2 + 3  # two shards, and a manifest


@pytest.mark.parametrize("damage", ["delete", "truncate", "record"])
def test_a_shard_that_is_gone_is_missing_although_its_segment_lists_it(out, damage):
    path = layout.shard_path(out, 5)
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        os.truncate(path, 100)
    else:
        layout.sidecar_path(out, 5).unlink()
    run_hash = layout.read_spec(out).hash
    assert shards.missing_shards(out, SHARDS, run_hash, "fast") == [5]
    assert shards.absent_shards(out, SHARDS) == ([] if damage == "truncate" else [5])
    assert not verify.verify(out, "fast").ok
    with pytest.raises(errors.JaxlensError):
        reader.open_run(out)


def test_what_is_stored_of_a_segment_does_not_outlive_a_shard_with_other_bits(out):
    other = memoryview(example.shard_image(SPEC, 5, SHARDS, ROWS, salt=1))
    commit.discard(out, 5)
    assert not manifest(out, 1).exists() and manifest(out, 0).exists()
    commit.publish_shard(out, example.place(SPEC, 5, SHARDS, ROWS), other, ROWS, example.FAST)
    finalize.finalize(out)
    assert verify.verify(out).ok
    assert segments.read_manifest(out, 1)[1] == layout.read_record(out, 5)


def test_a_stale_manifest_of_a_segment_is_not_believed_by_finalize(out):
    stale = manifest(out, 1).read_bytes()
    other = memoryview(example.shard_image(SPEC, 5, SHARDS, ROWS, salt=1))
    commit.discard(out, 5)
    commit.publish_shard(out, example.place(SPEC, 5, SHARDS, ROWS), other, ROWS, example.FAST)
    manifest(out, 1).write_bytes(stale)  # as a worker leaves it that was killed at the wrong moment
    assert not verify.verify(out).ok
    finalize.finalize(out)
    assert verify.verify(out).ok
    expected = sum(example.compute_tallies(shard)["count"] for shard in range(SHARDS))
    with reader.open_run(out) as run:
        np.testing.assert_array_equal(run.tally["count"], expected)


def test_builder_stores_a_segment_when_its_last_shard_is_committed(out):
    before = example.tree(out)
    for segment in range(3):
        for name in segments.FILES:
            layout.segment_path(out, segment, name).unlink()
    commit.discard(out, 9)
    with segment_builder.SegmentBuilder(out, layout.read_spec(out), example.FAST) as builder:
        builder.committed(2)
        builder.committed(8)  # its segment lacks a shard
    assert manifest(out, 0).exists() and not manifest(out, 2).exists()
    assert manifest(out, 0).read_bytes() == before["shards/MANIFEST"]
    example.damage(out, 6)
    with segment_builder.SegmentBuilder(out, layout.read_spec(out), example.FAST) as builder:
        builder.committed(6)
    assert not manifest(out, 1).exists()  # a damaged shard is left to the end of the run


def test_a_segment_whose_shards_change_meanwhile_is_derived_again(out, monkeypatch):
    other = memoryview(example.shard_image(SPEC, 5, SHARDS, ROWS, salt=1))
    derive, spec = segment_files.derive, layout.read_spec(out)

    def late(*arguments):
        folded = derive(*arguments)
        if layout.read_record(out, 5).sha256 not in {records.record(where, ROWS, other).sha256}:
            for act, data in ((layout.shard_path, other), (layout.sidecar_path, None)):
                raw = data or records.encode(records.record(where, ROWS, other))
                act(out, 5).write_bytes(raw)  # a writer that dies before it forgets the segment
        return folded

    where = example.place(SPEC, 5, SHARDS, ROWS)
    monkeypatch.setattr(segment_files, "derive", late)
    assert segment_files.publish_complete(out, spec, 1, example.FAST)
    assert segments.read_manifest(out, 1)[1] == layout.read_record(out, 5)


def in_one_directory(out):
    """Lays a run out as versions before segments did."""
    for shard in range(PER_SEGMENT, SHARDS):
        for act in (layout.shard_path, layout.sidecar_path):
            path = act(out, shard)
            path.rename(out / "shards" / path.name)
    for segment in range(3):
        for name in segments.FILES:
            layout.segment_path(out, segment, name).unlink()


def test_runs_of_earlier_versions_are_refused_with_the_command_that_converts_them(out):
    before = example.tree(out)
    in_one_directory(out)
    for act in (reader.open_run, verify.verify):
        with pytest.raises(errors.DataError, match="earlier version") as caught:
            act(out)
        assert "jaxlens finalize" in caught.value.hint
    finalize.finalize(out)
    assert example.tree(out) == before


def test_runs_of_earlier_versions_that_are_not_finished_resume(out):
    before = example.tree(out)
    in_one_directory(out)
    for name in ("part-00009.h5", "part-00004.json"):
        (out / "shards" / name).unlink()
    assert example.write_run(out, SHARDS, ROWS) == [4, 9]
    assert example.tree(out) == before


def test_moving_shards_goes_on_where_it_was_interrupted(out, tmp_path):
    before = example.tree(out)
    in_one_directory(out)

    class Dying(example.FastDisk):
        left = 3

        def rename(self, source, target):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            super().rename(source, target)

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run_directory.create_run(out, SPEC, Dying())
    run_directory.create_run(out, SPEC, example.FAST)
    finalize.finalize(out)
    assert example.tree(out) == before


def test_a_link_in_place_of_a_segment_is_refused_where_it_leads_out(out, tmp_path):
    (out / "shards" / "00001").rename(tmp_path / "elsewhere")
    (out / "shards" / "00001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.DataError, match="leads out"):
        reader.open_run(out)
    with pytest.raises(errors.DataError, match="leads out"):
        commit.publish_shard(out, example.place(SPEC, 5, SHARDS, ROWS), memoryview(b"x"), ROWS)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_place_of_a_segment_is_named_and_nothing_else_is_blamed(out, kind):
    folder_of = out / "shards" / "00001"
    shutil.rmtree(folder_of)
    if kind == "file":
        folder_of.touch()
    else:
        folder_of.symlink_to(out / "shards" / "00002")
    damaged = dict(verify.verify(out).damaged)
    assert damaged.pop("shards/00001") in ("is not a directory", "is a link")
    assert all(name.startswith("shards/00001/") for name in damaged)
    for act in (finalize.finalize, reader.open_run):
        with pytest.raises(errors.DataError, match=r"shards/00001 is (not a directory|a link)"):
            act(out)
    with pytest.raises(errors.DataError, match=r"shards/00001 is (not a directory|a link)"):
        example.write_run(out, SHARDS, ROWS)


@pytest.mark.skipif(sys.platform == "darwin", reason="no limit on memory there")
def test_untrusted_runs_of_segments_are_sized_and_those_of_earlier_versions_refused(out, tmp_path):
    assert untrusted._size(out) > 2 * untrusted._size(out / "shards" / "00001")
    big = out / "shards" / "00002" / "part-00009.h5"
    before = untrusted._size(out)
    big.write_bytes(b"x" * 2**20)
    assert untrusted._size(out) > before + 2**19
    run_directory.create_run(tmp_path / "old", example.spec(1100, ROWS), example.FAST)
    (tmp_path / "old" / "shards" / "part-01024.h5").touch()
    with pytest.raises(errors.DataError, match="earlier version"):
        untrusted.verify_untrusted(tmp_path / "old")  # in a process of its own


def test_files_that_do_not_belong_beside_shards_are_named(out):
    strange = ("shards/00001/notes.txt", "shards/00099/part-00396.h5", "shards/00002/part-00001.h5")
    for name in strange:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"x")
    damaged = dict(verify.verify(out).damaged)
    assert set(strange) <= set(damaged) and damaged[strange[2]] == "belongs in shards"


def test_small_files_that_are_odd_are_refused(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 100)
    (tmp_path / "inner").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "large")
    with folder.Folder(tmp_path) as opened:
        assert opened.read("large", 100) == b"x" * 100 and opened.size("large") == 100
        with pytest.raises(errors.DataError, match="at most 99"):
            opened.read("large", 99)
        for name, why in (("inner", "directory"), ("pipe", "regular"), ("link", "link")):
            with pytest.raises(errors.DataError, match=why):
                opened.read(name, 100)
        for name, why in (("inner", "directory"), ("pipe", "regular"), ("link", "regular")):
            with pytest.raises(errors.DataError, match=why):
                opened.size(name)
        for act in (opened.size, lambda name: opened.read(name, 1)):
            with pytest.raises(errors.MissingError):
                act("absent")
        (tmp_path / "large").rename(tmp_path / "moved")
        assert sorted(opened.names()) == ["inner", "link", "moved", "pipe"]


def test_tables_of_records_hold_what_the_records_do(out):
    entries = [layout.read_record(out, shard) for shard in range(SHARDS)]
    run_hash = layout.read_spec(out).hash
    table = record_table.RecordTable.of(run_hash, entries)
    assert list(table) == entries and table[-1] == entries[-1] and list(table[2:4]) == entries[2:4]
    assert table.manifest() == example.manifest(run_hash, entries)
    assert record_table.parse_manifest(table.manifest(), "x") == table
    for entry in entries:
        raw = records.encode(entry)
        assert record_table.parse_row(raw, "x") == record_table.to_row(entry)
        for bad in (raw[:-1], raw.replace(b'"rows":', b'"rows": '), raw + b"\n", raw[:-2] + b"\n"):
            with pytest.raises(errors.DataError):
                record_table.parse_row(bad, "x")


def test_names_are_those_of_the_layout(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert layout.shard_file(1023) == "shards/part-01023.h5"
    assert layout.sidecar_file(1024) == "shards/00001/part-01024.json"
    assert layout.shard_path(tmp_path, 102_400) == tmp_path / "shards/00100/part-102400.h5"
    assert [layout.segment_number(n) for n in ("00001", "00100", "00000", "1", "000001")] == [
        *(1, 100, None, None, None)
    ]
    assert layout.shards_of(1, 1500) == range(1024, 1500)
    assert contained.contained(tmp_path, "shards") == tmp_path / "shards"


SHORT = "TestStories"


@pytest.mark.parametrize("chosen", [SHORT, pytest.param("", marks=pytest.mark.long)])
def test_faults_kills_races_and_power_loss_do_to_segments_what_they_do_to_runs(chosen):
    """The tests of the store's protocol, with a segment for each shard."""
    names = ("faults", "concurrent_writers", "power_loss", "state_machine")
    files = [Path(__file__).with_name(f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *map(str, files), "-k", chosen]
    environment = os.environ | {"SHARDS_PER_SEGMENT": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:]
