"""The plan: documents to windows, windows to steps, steps to shards.

A pure function of the documents' lengths and four numbers. A window never leaves its document,
so the context of a token depends on its document, the length and the overlap alone; a step takes
a contiguous run of windows, so steps and shards record contiguous ranges of the token file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxlens import errors
from jaxlens.corpus import packing

MAX_DEFAULT_LENGTH = 1024
"""Tokens a line at most, unless more are asked for."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which tokens are computed where.

    Window ``w`` computes the tokens ``window_start[w]`` up to ``window_start[w] +
    window_length[w]`` of the file, at column ``window_column[w]`` of line ``window_line[w]`` of
    its step, and records all but the first ``window_skip[w]`` of them. A BOS token, where the plan
    has one, stands in the column before them: read as context, and never recorded.

    Attributes:
        length: Tokens a line.
        overlap: Tokens that a later window of a document computes again as context.
        step_sequences: Lines a step.
        steps_per_shard: Steps a shard.
        n_tokens: Tokens of the file, each recorded exactly once.
        window_start: First token of each window.
        window_length: Number of its tokens.
        window_skip: How many of them an earlier window records.
        window_line: Line of the step that it lies in.
        window_column: Column of its first token.
        window_segment: Its number in the line, from 1.
        step_window: First window of each step, and the number of windows.
        bos_id: Token that stands before every window and is not in the file; None for none.
    """

    length: int
    overlap: int
    step_sequences: int
    steps_per_shard: int
    n_tokens: int
    window_start: Int[np.ndarray, " window"]
    window_length: Int[np.ndarray, " window"]
    window_skip: Int[np.ndarray, " window"]
    window_line: Int[np.ndarray, " window"]
    window_column: Int[np.ndarray, " window"]
    window_segment: Int[np.ndarray, " window"]
    step_window: Int[np.ndarray, " steps_plus_1"]
    bos_id: int | None = None

    @property
    def lead(self) -> int:
        """Tokens before each window that are not in the file."""
        return lead(self.bos_id)

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return len(self.window_start)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.step_window) - 1

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_steps // self.steps_per_shard)

    @property
    def capacity(self) -> int:
        """Rows that a step can record at most."""
        return self.step_sequences * self.length

    @property
    def fill(self) -> float:
        """Share of the computed positions that hold a real token, in [0, 1]."""
        return float(self.window_length.sum()) / max(1, self.n_steps * self.capacity)

    def steps_of(self, shard: int) -> range:
        """Steps of a shard."""
        _check_index("shard", shard, self.n_shards)
        first = shard * self.steps_per_shard
        return range(first, min(first + self.steps_per_shard, self.n_steps))

    def tokens_of_step(self, step: int) -> tuple[int, int]:
        """First token that a step records, and the one after its last."""
        _check_index("step", step, self.n_steps)
        return self._recorded(self.step_window[step]), self._recorded(self.step_window[step + 1])

    def tokens_of_shard(self, shard: int) -> tuple[int, int]:
        """First token that a shard records, and the one after its last."""
        steps = self.steps_of(shard)
        return self.tokens_of_step(steps[0])[0], self.tokens_of_step(steps[-1])[1]

    def _recorded(self, window: int) -> int:
        if window == self.n_windows:
            return self.n_tokens
        return int(self.window_start[window]) + int(self.window_skip[window])


def build(
    document_start: Int[np.ndarray, " documents_plus_1"],
    *,
    length: int,
    overlap: int = 0,
    step_sequences: int,
    shard_tokens: int,
    bos_id: int | None = None,
) -> Plan:
    """Lays out a token file.

    Args:
        document_start: First token of each document, and the number of tokens.
        length: Tokens a line.
        overlap: Tokens that a later window of a document computes again as context.
        step_sequences: Lines a step.
        shard_tokens: Tokens a shard at most, rounded down to whole steps, at least one.
        bos_id: Token to put before every window; it takes one of ``length`` places.

    Raises:
        ConfigError: A number is out of range.
    """
    before = lead(bos_id)
    check_shape(length, overlap, step_sequences, shard_tokens, before)
    start, size, skip = _windows(np.asarray(document_start, np.int64), length - before, overlap)
    step_window, line = packing.pack(size + np.int32(before), length, step_sequences)
    column, segment = packing.columns(size + np.int32(before), step_window, line)
    return Plan(
        length=length,
        overlap=overlap,
        step_sequences=step_sequences,
        steps_per_shard=max(1, shard_tokens // (step_sequences * length)),
        n_tokens=int(document_start[-1]),
        window_start=start,
        window_length=size,
        window_skip=skip,
        window_line=line,
        window_column=column + before,
        window_segment=segment,
        step_window=step_window,
        bos_id=bos_id,
    )


def default_length(n_positions: int) -> int:
    """Tokens a line where none are asked for.

    Attention is unrolled over blocks of queries, and its cost grows with the length: of models that
    read tens of thousands of positions the whole context is not what one wants unasked.
    """
    return min(n_positions, MAX_DEFAULT_LENGTH)


def lead(bos_id: int | None) -> int:
    """Places that a token before each window takes."""
    return 0 if bos_id is None else 1


def check_shape(
    length: int, overlap: int, step_sequences: int, shard_tokens: int, before: int = 0
) -> None:
    """Refuses what `build` would refuse, before there are documents.

    Raises:
        ConfigError: A number is out of range.
    """
    if min(length, step_sequences, shard_tokens) < 1:
        raise errors.ConfigError(
            f"length {length}, step_sequences {step_sequences}, shard_tokens {shard_tokens}",
            "each is at least 1",
        )
    if before >= length:
        raise errors.ConfigError(
            f"plan.length is {length}, and the BOS token takes one place of each window",
            "give at least 2, or --set corpus.bos=none",
        )
    if not 0 <= overlap < length - before:
        most = f"length - {before + 1}"
        raise errors.ConfigError(
            f"plan.overlap is {overlap}, plan.length {length}", f"overlap is from 0 to {most}"
        )


def _check_index(name: str, index: int, size: int) -> None:
    if not 0 <= index < size:
        raise IndexError(f"{name} {index} of {size}")


def _windows(
    document_start: Int[np.ndarray, " documents_plus_1"], length: int, overlap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and number of already recorded tokens of each window."""
    stride = length - overlap
    tokens_in = np.diff(document_start)
    count = np.where(tokens_in > 0, 1 + np.maximum(0, -(-(tokens_in - length) // stride)), 0)
    document = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    offset = number * stride
    size = np.minimum(length, tokens_in[document] - offset)
    skip = np.where(number > 0, overlap, 0)
    return document_start[document] + offset, size.astype(np.int32), skip.astype(np.int32)
