"""Effect sizes.

Depths are small integers with many ties, so both effect sizes are defined by pairs: Cliff's delta
by how often one side is greater, the Hodges-Lehmann shift by the median of mean differences. Their
intervals take observations as independent; a design effect widens them.

Reference:
    Cliff 1993, doi:10.1037/0033-2909.114.3.494; Feng and Cliff 2004,
    doi:10.22237/jmasm/1099267440 (interval); Hodges and Lehmann 1963,
    doi:10.1214/aoms/1177704172; Hollander, Wolfe and Chicken 2014, Nonparametric Statistical
    Methods (intervals by inversion, with ties).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from jaxlens.study.stats import bootstrap


def _clean(values: Num[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    values = np.asarray(values, np.float64)
    return np.sort(values[~np.isnan(values)])


def cliff(
    x: Num[np.ndarray, " x"],
    y: Num[np.ndarray, " y"],
    level: float = 0.95,
    design_effect: float = 1.0,
) -> bootstrap.Estimate:
    """Cliff's delta, ``P(x > y) - P(x < y)``, with the asymmetric interval of Feng and Cliff.

    Args:
        x: One sample; NaN is left out.
        y: The other.
        level: Coverage.
        design_effect: Factor on the variance.

    Returns:
        In [-1, 1]; NaN ends with fewer than two observations in either sample.
    """
    x, y = _clean(x), _clean(y)
    n, m = len(x), len(y)
    if not n or not m:
        return bootstrap.missing(bootstrap.EMPTY, n=n + m)
    below, upto = (np.searchsorted(y, x, side) for side in ("left", "right"))
    above_x = m - upto
    by_x = (below - above_x) / m
    by_y = (n - np.searchsorted(x, y, "right") - np.searchsorted(x, y, "left")) / n
    delta = float(by_x.mean())
    if min(n, m) < 2:
        return bootstrap.missing("too few observations", delta, n + m)
    untied = float((below + above_x).sum())
    scatter = untied - n * m * delta * delta
    rows, columns = np.square(by_x - delta).sum(), np.square(by_y - delta).sum()
    variance = (m * m * rows + n * n * columns - scatter) / (n * m * (n - 1) * (m - 1))
    # The unbiased form can fall below what any two samples must have.
    variance = max(variance, (1 - delta * delta) / (n * m - 1)) * design_effect
    low, high = _asymmetric(delta, variance, min(n, m) / design_effect, level)
    return bootstrap.Estimate(delta, low, high, math.sqrt(variance), n + m, 0)


def _asymmetric(delta: float, variance: float, smaller: float, level: float) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.5 + level / 2))
    if abs(delta) == 1:
        # No overlap: the variance vanishes, but a finite sample proves no certainty.
        other = (smaller - z * z) / (smaller + z * z)
        return (other, 1.0) if delta > 0 else (-1.0, -other)
    scale = 1 - delta * delta + z * z * variance
    reach = z * math.sqrt(variance * ((1 - delta * delta) ** 2 + z * z * variance))
    centre = delta - delta**3
    return max(-1.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def hodges_lehmann(
    differences: Num[np.ndarray, " n"], level: float = 0.95, design_effect: float = 1.0
) -> bootstrap.Estimate:
    """Hodges-Lehmann centre of differences: the median of their pairwise means (Walsh averages).

    The interval inverts Wilcoxon's signed-rank test, normal approximation with ties.

    Args:
        differences: Of matched pairs; NaN is left out.
        level: Coverage.
        design_effect: Factor on the variance of the test.
    """
    d = _clean(differences)
    n = len(d)
    if not n:
        return bootstrap.missing(bootstrap.EMPTY)

    def at_most(centre: float) -> int:
        pairs = int(np.searchsorted(d, 2 * centre - d, "right").sum())
        return (pairs + int(np.count_nonzero(d <= centre))) // 2

    _, ties = np.unique(np.abs(d[d != 0]), return_counts=True)
    tied = (ties.astype(np.float64) ** 3 - ties).sum() / 48
    variance = (n * (n + 1) * (2 * n + 1) / 24 - tied) * design_effect
    return _inverted(at_most, d, n * (n + 1) // 2, variance, level)


def _inverted(
    at_most: Callable[[float], int],
    d: Float[np.ndarray, " n"],
    pairs: int,
    variance: float,
    level: float,
) -> bootstrap.Estimate:
    """Median of the pairs, and the two order statistics that bound it."""

    def ordered(k: int) -> float:
        return _nearest(d, _smallest(at_most, k, d[0], d[-1]))

    value = (ordered((pairs + 1) // 2) + ordered(pairs // 2 + 1)) / 2
    z = float(stats.norm.ppf(0.5 + level / 2))
    index = math.floor(pairs / 2 - z * math.sqrt(variance))
    if index < 0:
        return bootstrap.missing("too few observations", value, len(d))
    # Up to ``place`` pairs on one side the test rejects; the interval starts at the next one.
    low, high = ordered(index + 1), ordered(pairs - index)
    return bootstrap.Estimate(value, low, high, (high - low) / (2 * z), len(d), 0)


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
