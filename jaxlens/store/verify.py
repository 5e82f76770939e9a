"""Checking a run: whatever the bytes are, the answer is a report of all that is wrong."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxlens import errors
from jaxlens.files import contained, temporary
from jaxlens.store import (
    finalize,
    findings,
    layout,
    records,
    shard_contents,
    shards,
    token_counts_file,
    type_means_file,
    verify_beside,
    worker_notes,
)
from jaxlens.store.hdf5 import compare, reading
from jaxlens.store.merged import sources

MAX_NAMED = 100
"""Missing shards that are named one by one."""


@dataclass(frozen=True)
class Report:
    """The result of `verify`.

    Attributes:
        shards: Shards of the plan.
        rows: Rows of the sound shards.
        damaged: Files, relative to the run, each with what is wrong with it.
        missing: Shards that an unfinished run still lacks; those that a finished run lacks are
            damage.
        finished: Whether any of the files that end a run exists. Until then missing shards are
            still to be computed.
    """

    shards: int
    rows: int
    damaged: tuple[tuple[str, str], ...]
    missing: int = 0
    finished: bool = True

    @property
    def sound(self) -> bool:
        """Whether no file is damaged."""
        return not self.damaged

    @property
    def ok(self) -> bool:
        """Whether the run is finished and no file is damaged."""
        return self.sound and self.finished


def verify(
    run_dir: str | Path, level: shards.Level = "full", watch: Callable[[str], None] | None = None
) -> Report:
    """Checks a run, finished or not.

    ``fast`` compares the manifest, the records and the sizes. ``full`` reads every byte: the
    hash of each shard and of the token file, the checksum of each dataset, the coverage of the
    corpus, whether the derived files follow from the shards, and the probe and the ablation
    beside them.

    Args:
        run_dir: Run.
        level: ``fast`` or ``full``.
        watch: Called with the name of each file before it is checked; files are then checked one
            after the other.

    Raises:
        MissingError: The directory does not exist, or holds no run.
    """
    if not os.path.isdir(run_dir):
        raise errors.MissingError(f"{run_dir} is not a directory", "check the path")
    if not any(os.path.lexists(os.path.join(run_dir, n)) for n in (layout.RUN, layout.SHARDS)):
        raise errors.MissingError(f"{run_dir} holds no run", "check the path")
    if sources.is_merged(run_dir):
        from jaxlens.store.merged import verify_merged  # it verifies the runs that were merged

        return verify_merged.check(run_dir, level, watch)
    # Checked first, and only once: the run may be under way.
    finished = any(os.path.lexists(os.path.join(run_dir, name)) for name in layout.DERIVED)
    problems = findings.Findings(run_dir, watch)
    spec = _identity(problems)
    numbers = _existing_shards(problems, spec, finished)
    entries = _check_shards(problems, spec, numbers, level)
    for shard, problem in records.misplaced(entries):
        problems.add(_part(shard), problem)
    sound = not problems.items
    _unexpected(problems, spec.n_shards)
    if finished:
        _check_manifest(problems, spec, entries)
    for name, file in {
        layout.TYPE_MEANS: type_means_file,
        layout.TOKEN_COUNTS: token_counts_file,
    }.items():
        with problems.checking(name):
            file.check(run_dir, spec.document, full=level == "full")
    tokens = os.path.join(run_dir, layout.TOKENS, layout.TOKEN_RECORD)
    # Before the first shard they may still be written.
    if finished or numbers or os.path.lexists(tokens):
        _check_tokens(problems, spec, entries if sound else [], level)
    if level == "full":
        if sound and finished:
            _check_derived(problems)
        worker_notes.check(problems)
        verify_beside.check(problems, spec.hash)
    rows = sum(entry.rows for entry in entries)
    missing = 0 if finished else spec.n_shards - len(numbers)
    return Report(spec.n_shards, rows, tuple(problems.items), missing, finished)


def _identity(problems: findings.Findings) -> layout.Spec:
    """The spec; where ``RUN.json`` is damaged, what the shards say of it."""
    votes = shards.count_specs(problems.run_dir)
    majority = votes.most_common(1)[0][0] if votes else ""
    with problems.checking(layout.RUN):
        spec = layout.read_spec(problems.run_dir)
        if votes[spec.hash] or votes.total() < 2:
            return spec
        problems.add(
            layout.RUN,
            f"its sha256 is {spec.hash[:8]}..., the shards belong to {majority[:8]}...",
        )
    numbers = sorted(
        n for name in _shard_files(problems) if (n := layout.part_number(name)) is not None
    )
    return layout.Spec({}, majority, numbers[-1] + 1 if numbers else 0)


def _existing_shards(problems: findings.Findings, spec: layout.Spec, finished: bool) -> list[int]:
    """Numbers of the shards to check; of a finished run, missing ones become problems.

    Of an unfinished run these are the committed shards: a record alone is a shard under way.
    """
    numbers: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        numbers = layout.existing_shards(problems.run_dir, spec.n_shards)
    if not finished:
        return [n for n in numbers if os.path.lexists(os.path.join(problems.run_dir, _part(n)))]
    if spec.n_shards and not numbers:
        problems.add(layout.SHARDS, f"holds none of {spec.n_shards} shards")
    else:
        _name_missing(problems, spec.n_shards, numbers)
    return numbers


def _check_shards(
    problems: findings.Findings, spec: layout.Spec, numbers: list[int], level: shards.Level
) -> list[records.Record]:
    """Checks shards; returns the records of the sound ones."""

    def check(shard: int) -> tuple[records.Record | None, findings.Findings]:
        shard_findings = findings.Findings(problems.run_dir, problems.watch)
        with shard_findings.checking(f"{layout.SHARDS}/{layout.sidecar_name(shard)}"):
            if half := shards.half(problems.run_dir, shard):
                shard_findings.add(
                    f"{layout.SHARDS}/{half}", "is missing, the other half of its pair exists"
                )
                return None, shard_findings
            entry = shards.read_record(problems.run_dir, shard, spec.hash)
            with shard_findings.checking(_part(shard)):
                if level == "full":
                    _check_contents(problems.run_dir, spec, entry)
                else:
                    shards.check_size(problems.run_dir, entry)
                return entry, shard_findings
        return None, shard_findings

    entries = []
    workers = min(8, os.cpu_count() or 1) if problems.watch is None else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for entry, shard_findings in pool.map(check, numbers):
            problems.items += shard_findings.items
            entries += [entry] if entry else []
    return entries


def _name_missing(problems: findings.Findings, n_shards: int, numbers: list[int]) -> None:
    known = set(numbers)
    missing = (shard for shard in range(n_shards) if shard not in known)
    for shard in itertools.islice(missing, MAX_NAMED):
        problems.add(_part(shard), "is missing")
    if (more := n_shards - len(known) - MAX_NAMED) > 0:
        problems.add(layout.SHARDS, f"{more} more shards are missing")


def _check_contents(run_dir: str | Path, spec: layout.Spec, entry: records.Record) -> None:
    path = layout.shard_path(run_dir, entry.shard)
    with shards.open_shard(run_dir, entry) as contents, reading.reading(path):
        if spec.document and contents.attribute("format_version") != layout.format_version(spec):
            raise ValueError(f"its format is not that of {layout.RUN}")
        shard_contents.check_values(contents, spec.document, entry, path)


def _check_manifest(
    problems: findings.Findings, spec: layout.Spec, entries: list[records.Record]
) -> None:
    with problems.checking(layout.MANIFEST):
        spec_hash, listed = layout.read_manifest(problems.run_dir, len(entries))
        if spec_hash != spec.hash:
            problems.add(layout.MANIFEST, f"belongs to another run, {spec_hash[:8]}...")
        numbers = [entry.shard for entry in listed]
        if len(numbers) != spec.n_shards or numbers != list(range(len(numbers))):
            problems.add(layout.MANIFEST, "does not list every shard once, in order")
        by_number = {entry.shard: entry for entry in listed}
        for entry in entries:
            if by_number.get(entry.shard, entry) != entry:
                problems.add(_part(entry.shard), f"is not what {layout.MANIFEST} lists")


def _check_derived(problems: findings.Findings) -> None:
    with problems.checking(layout.SHARDS):
        derived = finalize.derive(problems.run_dir, hashed=False)
        for name in (layout.SUMMARY, layout.INDEX):
            with problems.checking(name):
                _compare(contained.contained(problems.run_dir, name), derived.files[name])


def _compare(path: Path, data: bytes | None) -> None:
    """Compares contents: another version of HDF5 may lay them out in other bytes."""
    if data is not None:
        compare.require_same(path, data)
    elif os.path.lexists(path):
        raise errors.DataError("it is out of date", "jaxlens finalize rebuilds it")


def _check_tokens(
    problems: findings.Findings,
    spec: layout.Spec,
    entries: list[records.Record],
    level: shards.Level,
) -> None:
    record = f"{layout.TOKENS}/{layout.TOKEN_RECORD}"
    with problems.checking(record):
        tokens = layout.read_tokens(problems.run_dir)
        corpus = spec.document.get("corpus")
        for name, value in vars(tokens).items():
            if isinstance(corpus, dict) and corpus.get(name, value) != value:
                problems.add(record, f"{name} is not that of {layout.RUN}")
        files = {layout.TOKEN_FILE: tokens.sha256, layout.TOKEN_INDEX: tokens.index_sha256}
        for name, expected in files.items():
            with problems.checking(f"{layout.TOKENS}/{name}"):
                _check_hash(layout.token_path(problems.run_dir, name), expected, level)
        with problems.checking(f"{layout.TOKENS}/{layout.TOKEN_FILE}"):
            size = contained.size(layout.token_path(problems.run_dir))
            if size != tokens.n_tokens * np.dtype(tokens.dtype).itemsize:
                problems.add(record, f"promises {tokens.n_tokens} tokens of {tokens.dtype}")
        last = entries and entries[-1].shard == spec.n_shards - 1
        if last and entries[-1].token_stop != tokens.n_tokens:
            stop = entries[-1].token_stop
            problems.add(_part(entries[-1].shard), f"ends at token {stop} of {tokens.n_tokens}")
        if entries and entries[0].tokens_sha256 != tokens.sha256:
            problems.add(record, "is of another token file than the shards")


def _check_hash(path: Path, expected: str, level: shards.Level) -> None:
    with contained.opened(path) as descriptor:
        if level == "full" and contained.sha256(path, descriptor) != expected:
            raise errors.DataError(
                "its sha256 is not that recorded", "jaxlens repair recomputes it"
            )


def _unexpected(problems: findings.Findings, n_shards: int) -> None:
    for name in _shard_files(problems):
        number = layout.part_number(name)
        if number is None and not temporary.is_temporary(name):
            problems.add(f"{layout.SHARDS}/{name}", "is not a file of a run")
        elif number is not None and number >= n_shards:
            problems.add(f"{layout.SHARDS}/{name}", f"is beyond the {n_shards} shards of the plan")


def _shard_files(problems: findings.Findings) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(errors.JaxlensError):
        names = contained.names(contained.contained(problems.run_dir, layout.SHARDS))
    return names


def _part(shard: int) -> str:
    return f"{layout.SHARDS}/{layout.shard_name(shard)}"
