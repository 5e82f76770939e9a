"""Draws that are a function of their seeds alone: of no state, no batch and no version of NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64

from jaxlens.tally import hashing

_WORD = 2**64 - 1


def start(*seeds: int) -> UInt64[np.ndarray, " 1"]:
    """Where the draws of a tuple of integers begin; the lowest 64 bits of each count."""
    state = np.zeros(1, np.uint64)
    for seed in seeds:
        state = hashing.mix(state ^ np.uint64(seed & _WORD))
    return state


def sample(begin: UInt64[np.ndarray, " 1"], size: int, count: int) -> Int[np.ndarray, " count"]:
    """The first numbers of a random order of ``range(size)``.

    Args:
        begin: From ``start``.
        size: How many numbers there are.
        count: How many of them to draw, at most ``size``; all of them are a permutation.
    """
    # No two keys are equal, so the order does not depend on how they are sorted.
    keys = hashing.mix(begin + np.arange(size, dtype=np.uint64))
    if count == size:
        return np.argsort(keys)
    lowest = np.argpartition(keys, count)[:count]
    return lowest[np.argsort(keys[lowest])]
