"""Segments: consecutive shards that share a directory, listed and checked together.

A run of more than one segment has a ``MANIFEST`` and a ``summary.h5`` for each of them that is
complete: the records of its shards and their merged tallies. Like those of the run they follow from
the shards; whoever needs all records or tallies reads them instead of every shard.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.files import folder, publish, system
from jaxlens.store import layout, record_table, records
from jaxlens.store.hdf5 import structure

FILES = (layout.SUMMARY, layout.MANIFEST)
"""What a complete segment has beside its shards, in the order in which they are written."""


@dataclass(frozen=True)
class Scan:
    """The shards of a segment, by their records and sizes.

    Attributes:
        table: Records of the sound shards.
        damaged: What is wrong with the others of which both files exist, in their order.
    """

    table: record_table.RecordTable
    damaged: tuple[str, ...] = ()


def open_folder(run_dir: str | Path, segment: int) -> folder.Folder:
    """The directory of a segment.

    Raises:
        MissingError: It does not exist.
        JaxlensError: It leads elsewhere, or cannot be opened.
    """
    return folder.Folder(run_dir, *layout.segment_parts(segment))


def existing(run_dir: str | Path, n_shards: int = records.MAX_SHARDS) -> list[int]:
    """Segments of a plan whose directories exist, in order; none where ``shards`` does not.

    Raises:
        JaxlensError: The directory leads elsewhere, or cannot be listed.
    """
    try:
        with open_folder(run_dir, 0) as first:
            numbers = {layout.segment_number(name) for name in first.names()}
    except errors.MissingError:
        return []
    known = sorted(number for number in numbers if number is not None)
    return [0, *(number for number in known if layout.shards_of(number, n_shards))]


def existing_shards(run_dir: str | Path, n_shards: int) -> list[int]:
    """Shards of a plan of which a file exists, in order.

    A plan may have millions of shards; the work here grows with those that exist.

    Raises:
        JaxlensError: A directory leads elsewhere, or cannot be listed.
    """
    found = existing(run_dir, n_shards)
    return [shard for segment in found for shard in existing_in(run_dir, segment, n_shards)]


def existing_in(run_dir: str | Path, segment: int, n_shards: int) -> list[int]:
    """The shards of one segment of `existing_shards`."""
    with open_folder(run_dir, segment) as opened:
        return sorted(_parts(opened, segment, n_shards))


def whole_shards(run_dir: str | Path, n_shards: int) -> set[int]:
    """Shards of a plan of which both files exist; errors are those of `existing_shards`."""
    shards: set[int] = set()
    for segment in existing(run_dir, n_shards):
        with open_folder(run_dir, segment) as opened:
            counts = _parts(opened, segment, n_shards)
        shards.update(shard for shard, n_files in counts.items() if n_files == 2)
    return shards


def scan(
    run_dir: str | Path, n_shards: int, spec_hash: str, trusting: bool = True
) -> Iterator[Scan]:
    """Compares the shards of each segment with their records, by size; reads no shard.

    Args:
        run_dir: Run.
        n_shards: Number of shards of its plan.
        spec_hash: Its spec.
        trusting: Whether the ``MANIFEST`` of a segment is read in place of the records it lists.

    Raises:
        StorageError: The system refused to read.
        DataError: A directory leads elsewhere.
    """
    numbers = existing(run_dir, n_shards)

    def one(segment: int) -> Scan:
        return scan_segment(run_dir, segment, n_shards, spec_hash, trusting)

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(one, numbers)


def scan_segment(
    run_dir: str | Path, segment: int, n_shards: int, spec_hash: str, trusting: bool = True
) -> Scan:
    """One segment of `scan`."""
    rows: list[record_table.Row] = []
    damaged: list[str] = []
    with open_folder(run_dir, segment) as opened:
        listed = _listed(opened, segment, n_shards, spec_hash) if trusting else {}
        for shard, n_files in sorted(_parts(opened, segment, n_shards).items()):
            try:
                if n_files == 2 and shard in listed and _has_size(opened, listed[shard]):
                    rows.append(listed[shard])
                else:
                    rows.append(_check(opened, shard, spec_hash))
            except errors.MissingError:
                pass
            except errors.DataError as error:
                damaged.append(error.message)
    return Scan(record_table.RecordTable(spec_hash, rows), tuple(damaged))


def has_files(n_shards: int) -> bool:
    """Whether the segments of a plan have files of their own: not where the run is one segment."""
    return n_shards > layout.SHARDS_PER_SEGMENT


def is_complete(run_dir: str | Path, segment: int, n_shards: int) -> bool:
    """Whether both files of all shards of a segment exist; their contents are not looked at."""
    with contextlib.suppress(errors.MissingError), open_folder(run_dir, segment) as opened:
        counts = _parts(opened, segment, n_shards)
        wanted = layout.shards_of(segment, n_shards)
        return len(counts) == len(wanted) and all(n == 2 for n in counts.values())
    return False


def read_manifest(run_dir: str | Path, segment: int) -> record_table.RecordTable:
    """Reads the ``MANIFEST`` of a segment.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    with open_folder(run_dir, segment) as opened:
        return _read_manifest(opened)


def forget_other(
    run_dir: str | Path, entry: records.Record, disk: system.Disk = system.DISK
) -> None:
    """Removes the ``MANIFEST`` of a shard's segment if it lists another record of the shard.

    Whoever writes a shard calls this before and after, so that what a concurrent worker derived
    from the shard before does not outlive it.

    Raises:
        StorageError: The disk failed.
    """
    segment = layout.segment_of(entry.shard)
    path = layout.segment_path(run_dir, segment, layout.MANIFEST)
    if not os.path.lexists(path):
        return
    with contextlib.suppress(errors.MissingError, errors.DataError):
        table = read_manifest(run_dir, segment)
        number = entry.shard - segment * layout.SHARDS_PER_SEGMENT
        if number < len(table) and table[number] == entry:
            return
    publish.remove(path, disk)


def _parts(opened: folder.Folder, segment: int, n_shards: int) -> dict[int, int]:
    """How many of its two files each shard of the segment has."""
    wanted = layout.shards_of(segment, n_shards)
    counts: dict[int, int] = {}
    for name in opened.names():
        number = layout.part_number(name)
        if number is not None and number in wanted:
            counts[number] = counts.get(number, 0) + 1
    return counts


def _listed(
    opened: folder.Folder, segment: int, n_shards: int, spec_hash: str
) -> dict[int, record_table.Row]:
    """What the ``MANIFEST`` of a segment lists; nothing where it is not of the whole segment."""
    if not has_files(n_shards):
        return {}
    with contextlib.suppress(errors.MissingError, errors.DataError):
        table = _read_manifest(opened)
        whole = table.shard.tolist() == list(layout.shards_of(segment, n_shards))
        if whole and table.spec_hash == spec_hash:
            return {row[0]: row for row in table.to_rows()}
    return {}


def _read_manifest(opened: folder.Folder) -> record_table.RecordTable:
    raw = opened.read(layout.MANIFEST, (layout.SHARDS_PER_SEGMENT + 1) * layout.LINE)
    return record_table.parse_manifest(raw, str(opened.path / layout.MANIFEST))


def _check(opened: folder.Folder, shard: int, spec_hash: str) -> record_table.Row:
    """The record of a shard, in four system calls.

    Raises:
        MissingError: One of its files does not exist.
        DataError: It is damaged, or of another run.
    """
    name = layout.sidecar_name(shard)
    path = opened.path / name
    row = record_table.parse_row(opened.read(name, layout.SMALL), str(path))
    require_owner(path, (row[0], row[7].decode()), (shard, spec_hash))
    size = opened.size(layout.shard_name(shard))
    require_size(opened.path / layout.shard_name(shard), size, row[4], row[3])
    return row


def _has_size(opened: folder.Folder, row: record_table.Row) -> bool:
    with contextlib.suppress(errors.MissingError, errors.DataError):
        return opened.size(layout.shard_name(row[0])) == row[4]
    return False


def require_owner(path: Path, stored: tuple[int, str], wanted: tuple[int, str]) -> None:
    """Refuses the record of another shard or run.

    Args:
        path: Of the record.
        stored: Shard and spec hash that it names.
        wanted: Those that it must name.

    Raises:
        DataError: They differ.
    """
    if stored[0] != wanted[0]:
        raise errors.DataError(f"{path} is of shard {stored[0]}", errors.RECOMPUTE)
    if stored[1] != wanted[1]:
        raise errors.DataError(f"{path} belongs to another run, {stored[1][:8]}", errors.RECOMPUTE)


def require_size(path: Path, size: int, recorded: int, rows: int) -> None:
    """Refuses a shard whose size is not that of its record, or too small for its rows.

    Raises:
        DataError: So it is.
    """
    if size != recorded:
        raise errors.DataError(
            f"{path} has {size} bytes, its record says {recorded}", errors.RECOMPUTE
        )
    if rows > structure.MAX_RATIO * size:
        raise errors.DataError(f"{path} has {size} bytes for {rows} rows", errors.RECOMPUTE)
