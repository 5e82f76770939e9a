"""Checking what follows from the shards of a run: of each segment, and of the whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import (
    finalize,
    findings,
    fold,
    layout,
    manifest,
    record_table,
    segment_files,
    segments,
)
from jaxlens.store.hdf5 import compare, reading


def check_manifest(
    problems: findings.Findings, spec: layout.Spec, entries: record_table.RecordTable
) -> None:
    """Compares ``MANIFEST`` with the records of the sound shards.

    Args:
        problems: Of the run, to which damaged files are added.
        spec: Of the run.
        entries: Records of the sound shards.
    """
    with problems.checking(layout.MANIFEST):
        listed = manifest.read(problems.run_dir, len(entries))
        if listed.spec_hash != spec.hash:
            problems.add(layout.MANIFEST, f"belongs to another run, {listed.spec_hash[:8]}...")
        if len(listed) != spec.n_shards or (listed.shard != np.arange(len(listed))).any():
            problems.add(layout.MANIFEST, "does not list every shard once, in order")
        if listed == entries:
            return
        by_number = {row[0]: row for row in listed.to_rows()}
        for row in entries.to_rows():
            if by_number.get(row[0], row) != row:
                problems.add(layout.shard_file(row[0]), f"is not what {layout.MANIFEST} lists")


def check_segments(
    problems: findings.Findings, spec: layout.Spec, entries: record_table.RecordTable
) -> None:
    """Compares what is stored of segments with the records; args are those of `check_manifest`."""
    if not segments.has_files(spec.n_shards):
        return
    for segment in segments.existing(problems.run_dir, spec.n_shards):
        listing, tallies = (
            "/".join((*layout.segment_parts(segment), name))
            for name in (layout.MANIFEST, layout.SUMMARY)
        )
        with problems.checking(listing):
            if _exists(problems, listing):
                listed = segments.read_manifest(problems.run_dir, segment)
                own = entries[slice(*np.searchsorted(entries.shard, _bounds(segment)))]
                # Damaged shards are not among the records, and are named themselves.
                if listed.spec_hash != spec.hash or not set(own.to_rows()) <= set(listed.to_rows()):
                    problems.add(listing, "does not list the shards beside it")
        with problems.checking(tallies):
            if _exists(problems, tallies):
                path = layout.segment_path(problems.run_dir, segment, layout.SUMMARY)
                reading.open_sealed(path).close()


def check(problems: findings.Findings, spec: layout.Spec) -> None:
    """Checks whether the derived files of a run with all its shards follow from these.

    Args:
        problems: Of the run, to which damaged files are added.
        spec: Of the run.
    """

    def of_segment(segment: int, part: record_table.RecordTable) -> fold.Folded:
        folded = fold.fold(problems.run_dir, spec, part, hashed=False)
        if segments.has_files(spec.n_shards):
            files = zip(
                segments.FILES, segment_files.images(spec, segment, part, folded), strict=True
            )
            for name, data in files:
                with problems.checking("/".join((*layout.segment_parts(segment), name))):
                    path = layout.segment_path(problems.run_dir, segment, name)
                    _compare(path, data)
        return folded

    with problems.checking(layout.SHARDS):
        derived = finalize.derive(problems.run_dir, of_segment)
        for name in (layout.SUMMARY, layout.INDEX):
            with problems.checking(name):
                _compare(contained.contained(problems.run_dir, name), derived.files[name])


def _bounds(segment: int) -> tuple[int, int]:
    first = segment * layout.SHARDS_PER_SEGMENT
    return first, first + layout.SHARDS_PER_SEGMENT


def _exists(problems: findings.Findings, name: str) -> bool:
    return os.path.lexists(os.path.join(problems.run_dir, name))


def _compare(path: Path, data: bytes | None) -> None:
    """Compares contents: another version of HDF5 may lay them out in other bytes."""
    if data is None:
        if os.path.lexists(path):
            raise errors.DataError("it is out of date", "jaxlens finalize rebuilds it")
        return
    if path.name != layout.MANIFEST:
        compare.require_same(path, data)
    elif not contained.holds(path, data):
        contained.size(path)  # refuses one that is missing
        raise errors.DataError("it does not list the shards", "jaxlens finalize rebuilds it")
