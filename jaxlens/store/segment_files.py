"""``MANIFEST`` and ``summary.h5`` of a segment, derived from its shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxlens import errors
from jaxlens.files import contained, publish, system
from jaxlens.store import (
    bounds,
    fold,
    layout,
    record_table,
    segments,
    shard_contents,
    summary,
)
from jaxlens.store.hdf5 import images as hdf5_images
from jaxlens.store.hdf5 import reading

TRIES = 8
"""Attempts to derive the files of shards that concurrent writers with other bits replace."""


def split(entries: record_table.RecordTable) -> Iterator[tuple[int, record_table.RecordTable]]:
    """All records of a run by segment."""
    for start in range(0, len(entries), layout.SHARDS_PER_SEGMENT):
        yield layout.segment_of(start), entries[start : start + layout.SHARDS_PER_SEGMENT]


def read(
    run_dir: str | Path, spec: layout.Spec, segment: int, entries: record_table.RecordTable
) -> fold.Folded | None:
    """The merged tallies of a segment as stored; None unless they are those of these records.

    Raises:
        StorageError: The system refused to read.
    """
    path = layout.segment_path(run_dir, segment, layout.SUMMARY)
    manifest = entries.manifest()
    if not contained.holds(layout.segment_path(run_dir, segment, layout.MANIFEST), manifest):
        return None
    with (
        contextlib.suppress(errors.MissingError, errors.DataError),
        reading.open_sealed(path) as contents,
        reading.reading(path),
    ):
        if contents.attribute("shards_sha256") != hashlib.sha256(manifest).hexdigest():
            return None
        form = shard_contents.read_form(contents)
        columns = {
            name: (np.dtype(code), tuple(tail))
            for name, code, tail in json.loads(str(contents.attribute("columns")))
        }
        sizes = bounds.sizes(spec.document, _n_tokens(entries))
        items = shard_contents.tallies(contents, spec.document)
        tallies = summary.add(None, str(path), items, sizes)
        return fold.Folded(shard_contents.Form(form.layer_names, columns, form.labels), tallies)
    return None


def images(
    spec: layout.Spec, segment: int, entries: record_table.RecordTable, folded: fold.Folded
) -> tuple[bytes, bytes]:
    """The bytes of the files of a segment, in the order of ``segments.FILES``."""
    manifest = entries.manifest()
    columns = [[n, dtype.str, list(tail)] for n, (dtype, tail) in folded.form.columns.items()]
    about = {
        "spec_hash": spec.hash,
        "segment": segment,
        "n_shards": len(entries),
        "n_tokens": _n_tokens(entries),
        "n_rows": int(entries.rows.sum()),
        "tokens_sha256": entries[0].tokens_sha256,
        "shards_sha256": hashlib.sha256(manifest).hexdigest(),
        "columns": json.dumps(columns),
    }
    form, version = folded.form, layout.format_version(spec)
    image = hdf5_images.summary_image(about, folded.tallies, form.layer_names, form.labels, version)
    return reading.seal(image), manifest


def derive(
    run_dir: str | Path,
    spec: layout.Spec,
    segment: int,
    entries: record_table.RecordTable,
    disk: system.Disk = system.DISK,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> fold.Folded:
    """The merged tallies of a segment: as stored, or else from its shards, and stored then.

    Args:
        run_dir: Run.
        spec: Its spec.
        segment: Number.
        entries: Records of its shards, all of them.
        disk: System calls.
        is_cancelled: See `fold.fold`.

    Raises:
        DataError: A shard is damaged or does not fit the others.
        StorageError: The disk is full or failed.
        Cancelled: ``is_cancelled`` said so.
    """
    stored = read(run_dir, spec, segment, entries)
    if stored is not None:
        return stored
    folded = fold.fold(run_dir, spec, entries, is_cancelled=is_cancelled)
    files = images(spec, segment, entries, folded)
    for name, data in zip(segments.FILES, files, strict=True):  # the manifest last: it commits
        path = layout.segment_path(run_dir, segment, name)
        if not contained.holds(path, data):
            publish.publish(path, data, disk)
    return folded


def publish_complete(
    run_dir: str | Path,
    spec: layout.Spec,
    segment: int,
    disk: system.Disk = system.DISK,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> bool:
    """Derives the files of a segment whose shards are all there.

    Args and errors are those of `derive`.

    Returns:
        Whether they are those of its shards now; not where shards are missing or damaged.
    """
    entries = _complete(run_dir, spec, segment)
    for _ in range(TRIES):
        if entries is None:
            return False
        derive(run_dir, spec, segment, entries, disk, is_cancelled)
        # A concurrent writer with other bits may have replaced a shard meanwhile.
        again = _complete(run_dir, spec, segment)
        if again == entries:
            return True
        publish.remove(layout.segment_path(run_dir, segment, layout.MANIFEST), disk)
        entries = again
    return False


def _complete(
    run_dir: str | Path, spec: layout.Spec, segment: int
) -> record_table.RecordTable | None:
    """Records of a segment that has all its shards, from their sidecars."""
    found = segments.scan_segment(run_dir, segment, spec.n_shards, spec.hash, trusting=False)
    wanted = layout.shards_of(segment, spec.n_shards)
    whole = not found.damaged and len(found.table) == len(wanted)
    return found.table if whole and not found.table.misplaced() else None


def _n_tokens(entries: record_table.RecordTable) -> int:
    return int(entries.token_stop[-1] - entries.token_start[0])
