"""Deterministic draws from counters: the same on every host, in any order."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt64


def mix(value: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """One step of SplitMix64, elementwise on uint64.

    Reference:
        Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
