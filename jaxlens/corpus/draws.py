"""Draws that are a function of their seeds alone: of no state, no batch and no version of NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64

_WORD = 2**64 - 1


def mix(value: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """One step of SplitMix64, elementwise on uint64; different values stay different.

    Reference:
        Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def start(*seeds: int) -> UInt64[np.ndarray, " 1"]:
    """Where the draws of a tuple of integers begin; the lowest 64 bits of each count."""
    state = np.zeros(1, np.uint64)
    for seed in seeds:
        state = mix(state ^ np.uint64(seed & _WORD))
    return state


def sample(begin: UInt64[np.ndarray, " 1"], size: int, count: int) -> Int[np.ndarray, " count"]:
    """The first numbers of a random order of ``range(size)``.

    Args:
        begin: From ``start``.
        size: How many numbers there are.
        count: How many of them to draw, at most ``size``; all of them are a permutation.
    """
    # No two keys are equal, so the order does not depend on how they are sorted.
    keys = mix(begin + np.arange(size, dtype=np.uint64))
    if count == size:
        return np.argsort(keys)
    chosen = np.argpartition(keys, count)[:count]
    return chosen[np.argsort(keys[chosen])]
