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
from jaxlens.store import layout, records, shard_contents
from jaxlens.store.hdf5 import reading, structure

Level = Literal["fast", "full"]
"""``fast`` reads sidecars and sizes, ``full`` every byte."""

TRIES = 8
"""Attempts to open a shard that concurrent writers keep replacing by the same bytes."""


_HINT = "run the same command again; it recomputes what is missing or damaged"


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


def sound_shards(
    run_dir: str | Path, n_shards: int, spec_hash: str, level: Level = "full"
) -> set[int]:
    """Sound shards of a run; memory grows with these, not with the plan.

    Args and errors are those of `missing_shards`.
    """
    numbers = layout.existing_shards(run_dir, n_shards)

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
    path = layout.sidecar_path(run_dir, shard)
    entry = layout.read_record(run_dir, shard)
    if entry.shard != shard:
        raise errors.DataError(f"{path} is of shard {entry.shard}", _HINT)
    if entry.spec_hash != spec_hash:
        raise errors.DataError(f"{path} belongs to another run, {entry.spec_hash[:8]}", _HINT)
    return entry


def complete(run_dir: str | Path, spec: layout.Spec) -> list[records.Record]:
    """Records of all shards of a run, in order, their sizes checked.

    Raises:
        MissingError: Some do not exist yet.
        DataError: Some are damaged.
    """
    entries, damaged = [], []
    for shard in layout.existing_shards(run_dir, spec.n_shards):
        try:
            entries.append(check(run_dir, shard, spec.hash, "fast"))
        except errors.MissingError:
            pass
        except errors.DataError as error:
            damaged.append(error.message)
    damaged += [f"{layout.shard_name(i)} {what}" for i, what in records.misplaced(entries)]
    if damaged:
        count = "1 shard is" if len(damaged) == 1 else f"{len(damaged)} shards are"
        raise errors.DataError(f"{count} damaged: {damaged[0]}", _HINT)
    if lacking := spec.n_shards - len(entries):
        numbers = (entry.shard for entry in entries)
        first = next((i for i, n in enumerate(numbers) if n != i), len(entries))
        raise errors.MissingError(
            f"{run_dir} lacks {lacking} of {errors.count(spec.n_shards, 'shard')}, "
            f"the first is {_named(run_dir, first)}",
            "run the same command again to compute them",
        )
    return entries


def check_manifest(run_dir: str | Path, spec: layout.Spec, entries: list[records.Record]) -> None:
    """Compares ``MANIFEST`` with the records of all shards; it may be missing.

    Raises:
        DataError: It is damaged, or lists other shards.
    """
    try:
        manifest = layout.read_manifest(run_dir, len(entries))
    except errors.MissingError:
        return
    if manifest != (spec.hash, entries):
        raise errors.DataError(
            f"{Path(run_dir) / layout.MANIFEST} does not fit the shards",
            "jaxlens verify names what is damaged",
        )


def half(run_dir: str | Path, shard: int) -> str | None:
    """The missing file of a shard of whose two files only one exists; else None.

    Raises:
        DataError: A link leads out of the run.
    """
    paths = layout.shard_path(run_dir, shard), layout.sidecar_path(run_dir, shard)
    missing = [path.name for path in paths if not os.path.lexists(path)]
    return missing[0] if len(missing) == 1 else None


def check_size(run_dir: str | Path, entry: records.Record) -> None:
    """Compares a shard's size with its record.

    Raises:
        MissingError: It does not exist.
        DataError: It has another size.
    """
    path = layout.shard_path(run_dir, entry.shard)
    _compare_size(path, contained.size(path), entry)


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
    for number in layout.existing_shards(run_dir, records.MAX_SHARDS):
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
        numbers = layout.existing_shards(run_dir, records.MAX_SHARDS)
    for number in numbers:
        with contextlib.suppress(errors.JaxlensError):
            votes[layout.read_record(run_dir, number).spec_hash] += 1
    with contextlib.suppress(errors.JaxlensError):
        votes[layout.read_manifest(run_dir, len(numbers))[0]] += 1
    return votes


def _open_unreplaced(path: Path, entry: records.Record, hashed: bool) -> reading.Contents:
    """Opens the file that was hashed, trying again while concurrent writers replace it."""
    tries = 0
    while True:
        tries += 1
        with contained.opened(path) as descriptor:
            _compare_size(path, os.fstat(descriptor).st_size, entry)
            if hashed and contained.sha256(path, descriptor) != entry.sha256:
                raise errors.DataError(f"{path} is damaged: its sha256 is not that recorded", _HINT)
            try:
                return reading.open_file(path, descriptor)
            except reading.Replaced:
                if tries == TRIES:
                    raise


def _named(run_dir: str | Path, shard: int) -> str:
    """What is missing of a shard: all of it, or one of its two files."""
    lacking = half(run_dir, shard)
    return layout.shard_name(shard) if lacking is None else f"half there: without {lacking}"


def _compare_size(path: Path, size: int, entry: records.Record) -> None:
    if size != entry.size:
        raise errors.DataError(f"{path} has {size} bytes, its record says {entry.size}", _HINT)
    if entry.rows > structure.MAX_RATIO * size:
        raise errors.DataError(f"{path} has {size} bytes for {entry.rows} rows", _HINT)


def _compare_attributes(contents: reading.Contents, entry: records.Record) -> None:
    if (version := contents.attribute("format_version")) not in schema.FORMATS:
        raise ValueError(f"format {version} is unknown here")
    for name, value in vars(entry.shard_range()).items():
        if contents.attribute(name) != value:
            raise ValueError(f"{name} is not that of its record")
    row_counts = {item.shape[0] for item in shard_contents.row_items(contents).values()} or {0}
    if row_counts != {entry.rows}:
        raise ValueError(f"it has {sorted(row_counts)} rows, its record says {entry.rows}")
