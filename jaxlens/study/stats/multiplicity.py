"""Many tests at once, and effects that are large enough to matter.

Reference:
    Holm 1979, Scandinavian Journal of Statistics 6:65; Benjamini and Hochberg 1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x; Lakens 2017, doi:10.1177/1948550617697177 (smallest
    effect of interest); Romano et al. 2006 (0.147 as a small Cliff's delta).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

SMALLEST = {
    "rho": 0.10,
    "cliff": 0.147,
    "preservation": 0.02,
    "phi": 0.05,
    "recall": 0.05,
    "copy": 0.05,
}
"""Smallest effects of interest: a correlation, Cliff's delta, a difference of P, of phi and of
recall, and a share of the copy gain."""

LARGER, SMALLER = "larger than matters", "smaller than matters"
UNDECIDED, NOT_ESTIMABLE = "undecided", "not estimable"


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's adjusted p-values: the family-wise error is at most the level, whatever depends.

    NaN stays NaN, yet counts as a test: what could not be estimated was planned.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")  # NaN last
    factor = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factor), 1.0)
    return adjusted


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Benjamini and Hochberg's adjusted p-values: the false discovery rate; NaN stays NaN."""
    p = np.asarray(p, np.float64)
    adjusted = np.full_like(p, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known], method="bh")
    return adjusted


def judge(value: float, low: float, high: float, smallest: float) -> str:
    """Compares an interval with the smallest effect of interest.

    Args:
        value: Estimate.
        low: Lower end of its interval.
        high: Upper end.
        smallest: Smallest effect of interest, positive, in the same unit.

    Returns:
        ``larger than matters`` where the whole interval lies beyond it on one side, ``smaller
        than matters`` where it lies within both signs of it, ``undecided`` where it crosses,
        ``not estimable`` where a number is missing.
    """
    if any(math.isnan(x) for x in (value, low, high)):
        return NOT_ESTIMABLE
    if low >= smallest or high <= -smallest:
        return LARGER
    return SMALLER if -smallest < low and high < smallest else UNDECIDED
