"""Files that follow from the shards: ``MANIFEST``, ``summary.h5``, ``index.h5``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained, publish, system
from jaxlens.store import (
    earlier_layout,
    fold,
    layout,
    record_table,
    segment_files,
    segments,
    shard_contents,
    shards,
    summary,
)
from jaxlens.store.hdf5 import images, reading

TRIES = 8
"""Attempts to derive files from shards that concurrent writers with other bits keep replacing."""

MAX_INDEXED = 256
"""Shards beyond which there is no index: HDF5 keeps every source of a virtual dataset open."""


OfSegment = Callable[[int, record_table.RecordTable], fold.Folded]
"""From a segment and its records to its merged tallies."""


@dataclass(frozen=True)
class Derived:
    """What follows from the shards.

    Attributes:
        files: Bytes by name; None for a file that must not exist.
        tallies: Merged totals.
    """

    files: dict[str, bytes | None]
    tallies: summary.Tallies


def finalize(run_dir: str | Path, disk: system.Disk = system.DISK) -> summary.Tallies:
    """Rebuilds the derived files of a run that has all its shards.

    It is idempotent: a file that is right is left alone, and the bytes are the same each time. A
    concurrent writer with other bits may replace a shard meanwhile, so the shards are checked again
    in the end.

    Args:
        run_dir: Run.
        disk: System calls.

    Returns:
        Merged tallies, int64.

    Raises:
        MissingError: Shards are missing.
        DataError: Shards are damaged, do not fit together, or do not come to rest.
        StorageError: The disk is full or failed.
    """
    spec = layout.read_spec(run_dir)
    earlier_layout.move_shards(run_dir, spec.n_shards, disk)

    def of_segment(segment: int, part: record_table.RecordTable) -> fold.Folded:
        if segments.has_files(spec.n_shards):
            return segment_files.derive(run_dir, spec, segment, part, disk)
        return fold.fold(run_dir, spec, part)

    for _ in range(TRIES):
        derived = derive(run_dir, of_segment)
        for name, data in derived.files.items():
            path = contained.contained(run_dir, name)
            if data is None:
                publish.remove(path, disk)
            elif not contained.holds(path, data):
                publish.publish(path, data, disk)
        if _is_of(run_dir, derived):
            return derived.tallies
    raise errors.DataError(
        f"{run_dir}: its shards change while the derived files are built",
        "look for writers whose results differ, then run jaxlens finalize",
    )


def derive(run_dir: str | Path, of_segment: OfSegment) -> Derived:
    """Computes the derived files of the run, writing none of them.

    Args:
        run_dir: Run.
        of_segment: Merges the tallies of a segment.

    Raises:
        MissingError: Shards are missing.
        DataError: Shards are damaged or do not fit together.
    """
    spec = layout.read_spec(run_dir)
    # From the sidecars: what is stored of a segment must follow from them too.
    entries = shards.complete(run_dir, spec, trusting=False)
    # The manifest comes last: where it exists, the others do.
    files: dict[str, bytes | None] = {layout.SUMMARY: None, layout.INDEX: None}
    tallies: summary.Tallies = {}
    if entries:
        folded = _fold(entries, of_segment)
        tallies = folded.tallies
        with reading.reading(
            contained.contained(run_dir, layout.SHARDS)
        ):  # sound, yet without sense
            files |= _images(spec, entries, folded.form, tallies)
    files[layout.MANIFEST] = entries.manifest()
    return Derived(files, tallies)


def _images(
    spec: layout.Spec,
    entries: record_table.RecordTable,
    form: shard_contents.Form,
    tallies: summary.Tallies,
) -> dict[str, bytes | None]:
    about = _attributes(spec, entries)
    version = layout.format_version(spec)
    image = images.summary_image(about, tallies, form.layer_names, form.labels, version)
    files: dict[str, bytes | None] = {layout.SUMMARY: reading.seal(image), layout.INDEX: None}
    if about["n_rows"] and len(entries) <= MAX_INDEXED:
        sources = [layout.shard_file(entry.shard) for entry in entries]
        image = images.index_image(about, entries, sources, form.columns, form.layer_names, version)
        files[layout.INDEX] = reading.seal(image)
    return files


def fold_run(
    run_dir: str | Path, spec: layout.Spec, entries: record_table.RecordTable
) -> summary.Tallies:
    """Merges the tallies of all shards of a run, reading what is stored of whole segments.

    Raises:
        DataError: A shard is damaged or does not fit the others.
    """

    def of_segment(segment: int, part: record_table.RecordTable) -> fold.Folded:
        stored = segment_files.read(run_dir, spec, segment, part)
        return stored or fold.fold(run_dir, spec, part)

    return _fold(entries, of_segment).tallies if entries else {}


def _is_of(run_dir: str | Path, derived: Derived) -> bool:
    """Whether the shards are still those that something was derived from."""
    spec = layout.read_spec(run_dir)
    with contextlib.suppress(errors.DataError):
        entries = shards.complete(run_dir, spec, trusting=False)
        return entries.manifest() == derived.files[layout.MANIFEST]
    return False


def _attributes(spec: layout.Spec, entries: record_table.RecordTable) -> dict[str, int | str]:
    return {
        "spec_hash": spec.hash,
        "n_shards": spec.n_shards,
        "n_tokens": entries[-1].token_stop,
        "n_rows": int(entries.rows.sum()),
        "tokens_sha256": entries[0].tokens_sha256,
    }


def _fold(entries: record_table.RecordTable, of_segment: OfSegment) -> fold.Folded:
    """What all shards have in common, and the sum of their tallies."""
    total: fold.Folded | None = None
    for segment, part in segment_files.split(entries):
        total = fold.add(total, f"segment {segment}", of_segment(segment, part))
    assert total is not None
    return total
