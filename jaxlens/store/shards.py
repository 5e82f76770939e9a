"""Committed shards: opening them, and finding those that are missing or damaged."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from jaxlens import errors, schema
from jaxlens.files import contained
from jaxlens.store import bounds, layout, records, summary
from jaxlens.store import columns as rows
from jaxlens.store.hdf5 import reading
from jaxlens.tally import definitions

Level = Literal["fast", "full"]
"""``fast`` reads sidecars and sizes, ``full`` every byte."""

TRIES = 8
"""Attempts to open a shard that rivals keep replacing by the same bytes."""

MAX_TALLY_BYTES = {"basic": 28 << 20, "study": 256 << 20}
"""Most bytes of each set of tallies, which are held in RAM whole: of the basic ones those of 71
layers of 50,257 tokens; those of the study take 169 MiB for the largest GPT-2."""

Columns = dict[str, tuple[np.dtype, tuple[int, ...]]]
"""Type and trailing shape of each quantity that rows are stored of."""

_LAYER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")

_HINT = "run the same command again; it recomputes what is missing or damaged"


@dataclass(frozen=True)
class Form:
    """What all shards of a run have in common.

    Attributes:
        layer_names: Labels of the layers.
        columns: Quantities with rows, in the order of the schema.
        labels: Labels of the tallies' axes.
    """

    layer_names: tuple[str, ...]
    columns: Columns
    labels: dict[str, tuple[str, ...]]


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
    """Shards of a run that are there and sound; memory grows with these, not with the plan.

    Args and errors are those of `missing_shards`.
    """
    there = layout.shards_there(run_dir, n_shards)

    def is_sound(shard: int) -> bool:
        try:
            check(run_dir, shard, spec_hash, level)
        except (errors.MissingError, errors.DataError):
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        verdicts = zip(there, pool.map(is_sound, there), strict=True)
        return {shard for shard, good in verdicts if good}


def check(run_dir: str | Path, shard: int, spec_hash: str, level: Level = "full") -> records.Record:
    """The record of a shard that is there and sound.

    Raises:
        MissingError: It is not there.
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
        MissingError: It is not there.
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
        MissingError: Some are not there yet.
        DataError: Some are damaged.
    """
    entries, damaged = [], []
    for shard in layout.shards_there(run_dir, spec.n_shards):
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


def half(run_dir: str | Path, shard: int) -> str | None:
    """The file of a shard's pair that is missing while the other is there; None if there is none.

    Raises:
        DataError: A link leads out of the run.
    """
    paths = layout.shard_path(run_dir, shard), layout.sidecar_path(run_dir, shard)
    missing = [path.name for path in paths if not os.path.lexists(path)]
    return missing[0] if len(missing) == 1 else None


def check_size(run_dir: str | Path, entry: records.Record) -> None:
    """Compares a shard's size with its record.

    Raises:
        MissingError: It is not there.
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
        MissingError: It is not there.
        DataError: It is not what the record says.
    """
    path = layout.shard_path(run_dir, entry.shard)
    contents = _open_unreplaced(path, entry, hashed)
    try:
        with reading.reading(path):
            _compare_place(contents, entry)
    except BaseException:
        contents.close()
        raise
    return contents


def tallies(contents: reading.Contents, spec: Mapping[str, Any]) -> dict[str, h5py.Dataset]:
    """The totals in ``/tally``, not yet read.

    Args:
        contents: Shard, or summary.
        spec: Of the run, which says how large they can be.

    Raises:
        ValueError: A total has another shape, or they are too many or too large.
    """
    architecture = spec["model"]["architecture"]
    n_layers, vocab_size = architecture["n_layer"] + 1, architecture["vocab_size"]
    items = _tally_items(contents).items()
    stored = {n: item for n, item in items if item.dtype.kind != "S" and not item.is_scale}
    # Who claims more must have said so where the run began, in its spec.
    kept = "study" if spec.get("store", {}).get("tallies") == "study" else "basic"
    for name, item in stored.items():
        shape = definitions.shape(definitions.BY_NAME[name], n_layers, vocab_size)
        if item.shape != shape:
            raise ValueError(f"tally {name} is {item.shape}, not {shape}")
    claimed = sum(item.size * item.dtype.itemsize for item in stored.values())
    if claimed > (most := MAX_TALLY_BYTES[kept]):
        raise ValueError(f"its tallies take {claimed} bytes, at most {most} make sense")
    return stored


def read_tallies(
    contents: reading.Contents, spec: Mapping[str, Any], tokens: int
) -> summary.Tallies:
    """Reads the totals in ``/tally``; see `tallies`.

    Args:
        contents: Summary.
        spec: Of the run.
        tokens: Tokens that were counted.

    Raises:
        DataError: A total has another type than the schema says, or a value that cannot be.
    """
    sizes = bounds.sizes(spec, tokens)
    return summary.add(None, str(contents.file.filename), tallies(contents, spec), sizes)


def read_form(contents: reading.Contents) -> Form:
    """Reads what all shards have in common.

    Raises:
        ValueError: A quantity is not stored as the schema says.
    """
    names = reading.labels(contents.datasets["layer_name"])
    if odd := [name for name in names if not _LAYER_NAME.fullmatch(name)]:
        raise ValueError(f"a layer is called {odd[0]!a:.60}")
    columns = {}
    for name, item in _row_items(contents).items():
        quantity, tail = schema.QUANTITIES[name], item.shape[1:]
        if not rows.is_stored_as(quantity, item.dtype, item.ndim):
            raise ValueError(f"{name} cannot be {item.dtype} {item.shape}")
        if "layer" in quantity.axes and tail[0] != len(names):
            raise ValueError(f"{name} has {tail[0]} layers, not {len(names)}")
        if not all(tail):
            raise ValueError(f"{name} is empty: {item.shape}")
        columns[name] = (item.dtype, tail)
    labelled = {
        name: reading.labels(item)
        for name, item in _tally_items(contents).items()
        if item.dtype.kind == "S" and item.is_scale
    }
    return Form(names, columns, labelled)


def format_there(run_dir: str | Path) -> int | None:
    """The format of the shards of a run that may have lost its spec; None where none is sound."""
    for number in layout.shards_there(run_dir, records.MOST_SHARDS):
        with contextlib.suppress(errors.MissingError, errors.DataError):
            entry = layout.read_record(run_dir, number)
            with open_shard(run_dir, entry) as found:
                return int(found.attribute("format_version"))
    return None


def skipped(contents: reading.Contents) -> object:
    """What the corpus skipped in the shard's range."""
    return json.loads(str(contents.attribute("skipped")))


def _open_unreplaced(path: Path, entry: records.Record, hashed: bool) -> reading.Contents:
    """Opens the very file that was hashed, trying again while rivals replace it."""
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


def _row_items(contents: reading.Contents) -> dict[str, h5py.Dataset]:
    stored = contents.datasets
    return {name: stored[name] for name in schema.QUANTITIES if name in stored}


def _tally_items(contents: reading.Contents) -> dict[str, h5py.Dataset]:
    prefix = "tally/"
    stored = contents.datasets.items()
    return {n.removeprefix(prefix): item for n, item in stored if n.startswith(prefix)}


def _compare_size(path: Path, size: int, entry: records.Record) -> None:
    if size != entry.size:
        raise errors.DataError(f"{path} has {size} bytes, its record says {entry.size}", _HINT)
    if entry.rows > reading.MAX_RATIO * size:
        raise errors.DataError(f"{path} has {size} bytes for {entry.rows} rows", _HINT)


def _compare_place(contents: reading.Contents, entry: records.Record) -> None:
    if (version := contents.attribute("format_version")) not in schema.FORMATS:
        raise ValueError(f"format {version} is unknown here")
    for name, value in vars(entry.place()).items():
        if contents.attribute(name) != value:
            raise ValueError(f"{name} is not that of its record")
    found = {item.shape[0] for item in _row_items(contents).values()} or {0}
    if found != {entry.rows}:
        raise ValueError(f"it has {sorted(found)} rows, its record says {entry.rows}")
