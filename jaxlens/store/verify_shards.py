"""Checking the shards of a run: their records, their bytes, and what else lies beside them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import os
from pathlib import Path

from jaxlens import errors
from jaxlens.files import temporary
from jaxlens.store import (
    findings,
    layout,
    record_table,
    records,
    segments,
    shard_contents,
    shards,
)
from jaxlens.store.hdf5 import reading

MAX_NAMED = 100
"""Missing shards that are named one by one."""


def existing(problems: findings.Findings, spec: layout.Spec, finished: bool) -> list[int]:
    """Numbers of the shards to check; of a finished run, missing ones become problems.

    Of an unfinished run these are the committed shards: a record alone is a shard under way.
    """
    numbers: list[int] = []
    found: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        found = segments.existing(problems.run_dir, spec.n_shards)
    for segment in found:
        with problems.checking("/".join(layout.segment_parts(segment))):
            numbers += segments.existing_in(problems.run_dir, segment, spec.n_shards)
    if not finished:
        root = problems.run_dir
        return [n for n in numbers if os.path.lexists(os.path.join(root, layout.shard_file(n)))]
    if spec.n_shards and not numbers:
        problems.add(layout.SHARDS, f"holds none of {spec.n_shards} shards")
    else:
        _name_missing(problems, spec.n_shards, numbers)
    return numbers


def check(
    problems: findings.Findings, spec: layout.Spec, numbers: list[int], level: shards.Level
) -> record_table.RecordTable:
    """Checks shards.

    Args:
        problems: Of the run, to which damaged files are added.
        spec: Of the run.
        numbers: Shards.
        level: As of ``verify.verify``.

    Returns:
        Records of the sound ones.
    """
    rows: list[record_table.Row] = []
    if level == "fast" and segments.has_files(spec.n_shards):
        with contextlib.suppress(errors.JaxlensError):
            for scan in segments.scan(problems.run_dir, spec.n_shards, spec.hash):
                rows += scan.table.to_rows()
    known = {row[0] for row in rows}
    rest = [number for number in numbers if number not in known]
    one = functools.partial(_check_shard, problems, spec, level)
    workers = min(8, os.cpu_count() or 1) if problems.watch is None else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for entry, shard_findings in pool.map(one, rest):
            problems.items += shard_findings.items
            rows += [] if entry is None else [record_table.to_row(entry)]
    return record_table.RecordTable(spec.hash, sorted(rows))


def _check_shard(
    problems: findings.Findings, spec: layout.Spec, level: shards.Level, shard: int
) -> tuple[records.Record | None, findings.Findings]:
    own = findings.Findings(problems.run_dir, problems.watch)
    with own.checking(layout.sidecar_file(shard)):
        if half := shards.half(problems.run_dir, shard):
            own.add(half, "is missing, the other half of its pair exists")
            return None, own
        entry = shards.read_record(problems.run_dir, shard, spec.hash)
        with own.checking(layout.shard_file(shard)):
            if level == "full":
                _check_contents(problems.run_dir, spec, entry)
            else:
                shards.check_size(problems.run_dir, entry)
            return entry, own
    return None, own


def check_names(problems: findings.Findings, n_shards: int) -> None:
    """Adds files that lie among the shards and do not belong there.

    Args:
        problems: Of the run.
        n_shards: Number of shards of its plan.
    """
    found: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        found = segments.existing(problems.run_dir)
    for segment in found:
        with contextlib.suppress(errors.JaxlensError):
            with segments.open_folder(problems.run_dir, segment) as opened:
                names = sorted(opened.names())
            for name in names:
                _check_name(problems, segment, name, n_shards)


def _name_missing(problems: findings.Findings, n_shards: int, numbers: list[int]) -> None:
    known = set(numbers)
    missing = (shard for shard in range(n_shards) if shard not in known)
    for shard in itertools.islice(missing, MAX_NAMED):
        problems.add(layout.shard_file(shard), "is missing")
    if (more := n_shards - len(known) - MAX_NAMED) > 0:
        problems.add(layout.SHARDS, f"{more} more shards are missing")


def _check_contents(run_dir: str | Path, spec: layout.Spec, entry: records.Record) -> None:
    path = layout.shard_path(run_dir, entry.shard)
    with shards.open_shard(run_dir, entry) as contents, reading.reading(path):
        if spec.document and contents.attribute("format_version") != layout.format_version(spec):
            raise ValueError(f"its format is not that of {layout.RUN}")
        shard_contents.check_values(contents, spec.document, entry, path)


def _check_name(problems: findings.Findings, segment: int, name: str, n_shards: int) -> None:
    path = "/".join((*layout.segment_parts(segment), name))
    number = layout.part_number(name)
    if number is not None and number >= n_shards:
        problems.add(path, f"is beyond the {n_shards} shards of the plan")
    elif number is not None and layout.segment_of(number) != segment:
        problems.add(path, f"belongs in {layout.shard_file(number).rpartition('/')[0]}")
    elif number is None and not _is_expected(segment, name, n_shards):
        problems.add(path, "is not a file of a run")


def _is_expected(segment: int, name: str, n_shards: int) -> bool:
    """Whether a name in the directory of a segment is none of a shard's, but of a run's."""
    if temporary.is_temporary(name):
        return True
    if not segments.has_files(n_shards):
        return False
    child = layout.segment_number(name) if segment == 0 else None
    is_folder = child is not None and len(layout.shards_of(child, n_shards)) > 0
    return is_folder or name in segments.FILES
