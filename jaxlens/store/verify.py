"""Checking a run: whatever the bytes are, the answer is a report of all that is wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import (
    earlier_layout,
    findings,
    layout,
    record_table,
    records,
    segments,
    shards,
    token_counts_file,
    type_means_file,
    verify_beside,
    verify_derived,
    verify_shards,
    worker_notes,
)
from jaxlens.store.merged import sources


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
        DataError: Its shards lie where an earlier version put them.
        StorageError: The system does not let it be read.
    """
    if not os.path.isdir(run_dir):
        raise errors.MissingError(f"{run_dir} is not a directory", "check the path")
    if not {layout.RUN, layout.SHARDS}.intersection(contained.names(Path(run_dir))):
        raise errors.MissingError(f"{run_dir} holds no run", "check the path")
    if sources.is_merged(run_dir):
        from jaxlens.store.merged import verify_merged  # it verifies the runs that were merged

        return verify_merged.check(run_dir, level, watch)
    # Checked first, and only once: the run may be under way.
    finished = any(os.path.lexists(os.path.join(run_dir, name)) for name in layout.DERIVED)
    problems = findings.Findings(run_dir, watch)
    spec = _identity(problems)
    earlier_layout.require_moved(run_dir, spec.n_shards)
    numbers = verify_shards.existing(problems, spec, finished)
    entries = verify_shards.check(problems, spec, numbers, level)
    for shard, problem in entries.misplaced():
        problems.add(layout.shard_file(shard), problem)
    sound = not problems.items
    verify_shards.check_names(problems, spec.n_shards)
    if finished:
        verify_derived.check_manifest(problems, spec, entries)
    for file in (type_means_file, token_counts_file):
        with problems.checking(file.FILE.name):
            file.FILE.check(run_dir, spec.document, file.read if level == "full" else None)
    tokens = os.path.join(run_dir, layout.TOKENS, layout.TOKEN_RECORD)
    # Before the first shard they may still be written.
    if finished or numbers or os.path.lexists(tokens):
        _check_tokens(problems, spec, entries if sound else entries[:0], level)
    if level == "full":
        verify_derived.check_segments(problems, spec, entries)
        if sound and finished:
            verify_derived.check(problems, spec)
        worker_notes.check(problems)
        verify_beside.check(problems, spec.hash)
    rows = int(entries.rows.sum())
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
    with contextlib.suppress(errors.JaxlensError):
        numbers = segments.existing_shards(problems.run_dir, records.MAX_SHARDS)
        return layout.Spec({}, majority, numbers[-1] + 1 if numbers else 0)
    return layout.Spec({}, majority, 0)


def _check_tokens(
    problems: findings.Findings,
    spec: layout.Spec,
    entries: record_table.RecordTable,
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
        last = len(entries) and entries[-1].shard == spec.n_shards - 1
        if last and entries[-1].token_stop != tokens.n_tokens:
            stop = entries[-1].token_stop
            problems.add(
                layout.shard_file(entries[-1].shard), f"ends at token {stop} of {tokens.n_tokens}"
            )
        if entries and entries[0].tokens_sha256 != tokens.sha256:
            problems.add(record, "is of another token file than the shards")


def _check_hash(path: Path, expected: str, level: shards.Level) -> None:
    if level == "fast":
        contained.size(path)  # without opening it: in an object store that would fetch it
        return
    with contained.opened(path) as descriptor:
        if contained.sha256(path, descriptor) != expected:
            raise errors.DataError(
                "its sha256 is not that recorded", "jaxlens repair recomputes it"
            )
