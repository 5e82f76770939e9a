"""The Hodges-Lehmann centre of differences.

Depths are small integers, so matched differences have few values, and the centre falls on the same
one in nearly every sample. The coverage of an interval would mean nothing; none is given.

Reference:
    Hodges and Lehmann 1963, doi:10.1214/aoms/1177704172.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Num


def hodges_lehmann(differences: Num[np.ndarray, " n"]) -> float:
    """The median of the pairwise means of differences (Walsh averages); NaN without any.

    Args:
        differences: Of matched pairs; NaN is left out.
    """
    d = np.asarray(differences, np.float64)
    d = np.sort(d[~np.isnan(d)])
    n = len(d)
    if not n:
        return math.nan

    def at_most(centre: float) -> int:
        pairs = int(np.searchsorted(d, 2 * centre - d, "right").sum())
        return (pairs + int(np.count_nonzero(d <= centre))) // 2

    def ordered(k: int) -> float:
        return _nearest(d, _smallest(at_most, k, d[0], d[-1]))

    pairs = n * (n + 1) // 2
    return (ordered((pairs + 1) // 2) + ordered(pairs // 2 + 1)) / 2


def _smallest(at_most: Callable[[float], int], k: int, low: float, high: float) -> float:
    """Smallest value with at least k pairs at most there, to the last bit of a float64."""
    if at_most(low) >= k:
        return low
    while True:
        middle = low + (high - low) / 2
        if not low < middle < high:
            return high
        if at_most(middle) >= k:
            high = middle
        else:
            low = middle


def _nearest(d: Float[np.ndarray, " n"], centre: float) -> float:
    """The mean of two of the sorted values that is nearest to a centre."""
    index = np.searchsorted(d, 2 * centre - d)
    means = [(d + d[np.clip(index + side, 0, len(d) - 1)]) / 2 for side in (-1, 0)]
    nearest = np.concatenate(means)
    return float(nearest[np.argmin(np.abs(nearest - centre))])
