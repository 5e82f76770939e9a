"""Prompts of many lengths in batches of a few shapes, so that few programs are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

MIN_LENGTH, MIN_POSITIONS = 8, 64
"""Least padded length, and least positions of a batch: smaller programs are hardly faster."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts that are run together.

    Attributes:
        prompts: Their numbers; at most as many as there are lines.
        tokens: Their ids, 0 in the padding on the right and in lines without a prompt.
        mask: True where a token is real.
    """

    prompts: Int[np.ndarray, " prompt"]
    tokens: Int[np.ndarray, "line position"]
    mask: Bool[np.ndarray, "line position"]


def padded_length(count: int, longest: int) -> int:
    """The length to which a prompt is padded: 8, 16, 24, 32, 48, 64, 96, ..., at most ``longest``.

    Beyond 16, two lengths a doubling waste a sixth of the positions on average.
    """
    length = MIN_LENGTH
    while length < count:
        power = 1 << (length.bit_length() - 1)
        length = (
            2 * length if length < 16 else length + power // 2 if length == power else 2 * power
        )
    return min(length, longest)


def batches(ids: Sequence[Any], most_tokens: int, longest: int) -> Iterator[Batch]:
    """Groups prompts by their padded length, shortest first.

    Every batch of a length has the same number of lines.

    Args:
        ids: Token ids of each prompt, none of them empty.
        most_tokens: Positions of a batch, unless a single prompt has more.
        longest: Positions of the model.
    """
    padded = np.array([padded_length(len(one), longest) for one in ids], np.int64)
    for length in np.unique(padded).tolist():
        members = np.flatnonzero(padded == length)
        enough = max(_power_above(len(members)), MIN_POSITIONS // length)
        lines = min(_power_below(max(1, most_tokens // length)), enough)
        for start in range(0, len(members), lines):
            group = members[start : start + lines]
            tokens = np.zeros((lines, length), np.int32)
            mask = np.zeros((lines, length), bool)
            for line, prompt in enumerate(group.tolist()):
                count = len(ids[prompt])
                tokens[line, :count], mask[line, :count] = ids[prompt], True
            yield Batch(group, tokens, mask)


def _power_below(n: int) -> int:
    return 1 << (n.bit_length() - 1)


def _power_above(n: int) -> int:
    return 1 << (n - 1).bit_length()
