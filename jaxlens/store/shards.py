"""Committed shards: opening them, and finding those that are missing or damaged."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
from pathlib import Path
from typing import Literal

from jaxlens import errors, schema
from jaxlens.files import contained
from jaxlens.store import layout, manifest, record_table, records, segments, shard_contents
from jaxlens.store.hdf5 import reading

Level = Literal["fast", "full"]
"""``fast`` reads sidecars and sizes, ``full`` every byte."""

TRIES = 8
"""Attempts to open a shard that concurrent writers keep replacing by the same bytes."""


def missing_shards(
    run_dir: str | Path, n_shards: int, spec_hash: str, level: Level = "full"
) -> list[int]:
    """Shards that must be computed: absent, of another run, or damaged.

    Args:
        run_dir: Run.
        n_shards: Number of shards of its plan.
        spec_hash: Its spec.
        level: ``fast`` compares sizes, ``full`` hashes.

    Raises:
        StorageError: The system refused to read.
    """
    sound = sound_shards(run_dir, n_shards, spec_hash, level)
    return [shard for shard in range(n_shards) if shard not in sound]


def absent_shards(run_dir: str | Path, n_shards: int) -> list[int]:
    """Shards that lack a file, by names alone: no record and no size is looked at.

    Args:
        run_dir: Run.
        n_shards: Number of shards of its plan.

    Raises:
        StorageError: The system refused to list a directory.
    """
    present = segments.whole_shards(run_dir, n_shards)
    return [shard for shard in range(n_shards) if shard not in present]


def sound_shards(
    run_dir: str | Path, n_shards: int, spec_hash: str, level: Level = "full"
) -> set[int]:
    """Sound shards of a run; memory grows with these, not with the plan.

    Args and errors are those of `missing_shards`.
    """
    if level == "fast":
        scans = segments.scan(run_dir, n_shards, spec_hash)
        return {shard for scan in scans for shard in scan.table.shard.tolist()}
    numbers = segments.existing_shards(run_dir, n_shards)

    def is_sound(shard: int) -> bool:
        try:
            check(run_dir, shard, spec_hash, level)
        except (errors.MissingError, errors.DataError):
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        verdicts = zip(numbers, pool.map(is_sound, numbers), strict=True)
        return {shard for shard, good in verdicts if good}


def check(run_dir: str | Path, shard: int, spec_hash: str, level: Level = "full") -> records.Record:
    """The record of a sound shard.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged or belongs elsewhere.
    """
    entry = read_record(run_dir, shard, spec_hash)
    if level == "full":
        open_shard(run_dir, entry).close()
    else:
        check_size(run_dir, entry)
    return entry


def read_record(run_dir: str | Path, shard: int, spec_hash: str) -> records.Record:
    """The sidecar of a shard.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged or belongs elsewhere.
    """
    entry = layout.read_record(run_dir, shard)
    path = layout.sidecar_path(run_dir, shard)
    segments.require_owner(path, (entry.shard, entry.spec_hash), (shard, spec_hash))
    return entry


def complete(
    run_dir: str | Path, spec: layout.Spec, trusting: bool = True
) -> record_table.RecordTable:
    """Records of all shards of a run, in order, their sizes checked.

    Args:
        run_dir: Run.
        spec: Its spec.
        trusting: See `segments.scan`.

    Raises:
        MissingError: Some do not exist yet.
        DataError: Some are damaged.
    """
    tables, damaged = [], []
    for scan in segments.scan(run_dir, spec.n_shards, spec.hash, trusting):
        tables.append(scan.table)
        damaged += scan.damaged
    entries = record_table.RecordTable.concatenate(spec.hash, tables)
    damaged += [f"{layout.shard_name(i)} {what}" for i, what in entries.misplaced()]
    if damaged:
        count = "1 shard is" if len(damaged) == 1 else f"{len(damaged)} shards are"
        raise errors.DataError(f"{count} damaged: {damaged[0]}", errors.RECOMPUTE)
    if lacking := spec.n_shards - len(entries):
        first = next((i for i, n in enumerate(entries.shard) if n != i), len(entries))
        raise errors.MissingError(
            f"{run_dir} lacks {lacking} of {errors.count(spec.n_shards, 'shard')}, "
            f"the first is {_named(run_dir, first)}",
            "wait for the workers that compute them, or run the same jaxlens run again",
        )
    return entries


def check_manifest(
    run_dir: str | Path, spec: layout.Spec, entries: record_table.RecordTable
) -> None:
    """Compares ``MANIFEST`` with the records of all shards; it may be missing.

    Raises:
        DataError: It is damaged, or lists other shards.
    """
    try:
        same = manifest.lists_exactly(run_dir, entries)
    except errors.MissingError:
        return
    if not same:
        manifest.read(run_dir, len(entries))  # which says what is damaged
        raise errors.DataError(
            f"{Path(run_dir) / layout.MANIFEST} does not fit the shards",
            "jaxlens verify names what is damaged",
        )


def half(run_dir: str | Path, shard: int) -> str | None:
    """The missing file, relative to the run, of a shard that has only one of its two; else None.

    Raises:
        DataError: A link leads out of the run.
    """
    paths = {
        layout.shard_file(shard): layout.shard_path(run_dir, shard),
        layout.sidecar_file(shard): layout.sidecar_path(run_dir, shard),
    }
    missing = [name for name, path in paths.items() if not os.path.lexists(path)]
    return missing[0] if len(missing) == 1 else None


def check_size(run_dir: str | Path, entry: records.Record) -> None:
    """Compares a shard's size with its record.

    Raises:
        MissingError: It does not exist.
        DataError: It has another size.
    """
    path = layout.shard_path(run_dir, entry.shard)
    segments.require_size(path, contained.size(path), entry.size, entry.rows)


def open_shard(run_dir: str | Path, entry: records.Record, hashed: bool = True) -> reading.Contents:
    """Opens a shard that is exactly what its record says.

    Args:
        run_dir: Run.
        entry: Record of the shard.
        hashed: Whether to read all of it and compare the hash; without, the size must do.

    Raises:
        MissingError: It does not exist.
        DataError: It is not what the record says.
    """
    path = layout.shard_path(run_dir, entry.shard)
    contents = _open_unreplaced(path, entry, hashed)
    try:
        with reading.reading(path):
            _compare_attributes(contents, entry)
    except BaseException:
        contents.close()
        raise
    return contents


def stored_format(run_dir: str | Path) -> int | None:
    """The format of the shards of a run that may have lost its spec; None where none is sound."""
    for number in segments.existing_shards(run_dir, records.MAX_SHARDS):
        with contextlib.suppress(errors.MissingError, errors.DataError):
            entry = layout.read_record(run_dir, number)
            with open_shard(run_dir, entry) as contents:
                return int(contents.attribute("format_version"))
    return None


def count_specs(run_dir: str | Path) -> collections.Counter[str]:
    """How many shard records, and the manifest, name each spec hash."""
    votes: collections.Counter[str] = collections.Counter()
    numbers: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        numbers = segments.existing_shards(run_dir, records.MAX_SHARDS)
    for number in numbers:
        with contextlib.suppress(errors.JaxlensError):
            votes[layout.read_record(run_dir, number).spec_hash] += 1
    with contextlib.suppress(errors.JaxlensError):
        votes[manifest.read(run_dir, len(numbers)).spec_hash] += 1
    return votes


def _open_unreplaced(path: Path, entry: records.Record, hashed: bool) -> reading.Contents:
    """Opens the file that was hashed, trying again while concurrent writers replace it."""
    tries = 0
    while True:
        tries += 1
        with contained.opened(path) as descriptor:
            size = os.fstat(descriptor).st_size
            segments.require_size(path, size, entry.size, entry.rows)
            if hashed and contained.sha256(path, descriptor) != entry.sha256:
                raise errors.DataError(
                    f"{path} is damaged: its sha256 is not that recorded", errors.RECOMPUTE
                )
            try:
                return reading.open_file(path, descriptor)
            except reading.Replaced:
                if tries == TRIES:
                    raise


def _named(run_dir: str | Path, shard: int) -> str:
    """What is missing of a shard: all of it, or one of its two files."""
    lacking = half(run_dir, shard)
    if lacking is None:
        return layout.shard_name(shard)
    return f"half there: without {lacking.rpartition('/')[2]}"


def _compare_attributes(contents: reading.Contents, entry: records.Record) -> None:
    if (version := contents.attribute("format_version")) not in schema.FORMATS:
        raise ValueError(f"format {version} is unknown here")
    for name, value in vars(entry.shard_range()).items():
        if contents.attribute(name) != value:
            raise ValueError(f"{name} is not that of its record")
    row_counts = {item.shape[0] for item in shard_contents.row_items(contents).values()} or {0}
    if row_counts != {entry.rows}:
        raise ValueError(f"it has {sorted(row_counts)} rows, its record says {entry.rows}")
