"""A ratio of totals over clusters of unequal size, with an interval for few of them.

Means that weigh clusters by their size are such ratios, and so are shares of one mean in another.
Two intervals are made, and the wider end of each is taken:

- ``value ± t se`` with the jackknife over clusters, and t with one degree of freedom less than the
  effective number of clusters, ``(sum n)^2 / sum n^2``. It is right for heavy tails on both sides.
- the studentised bootstrap, of which each replica has a standard error of its own. It follows the
  skewness of the ratio, which makes the first one too short.

Reference:
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 11 and 12.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Num

from jaxlens.study.stats import bootstrap

MIN_EFFECTIVE = 15
"""With fewer effective clusters there is no interval: planted skewed ones are not covered."""

REPLICAS = 1_000
"""Of the studentised bootstrap, whose ends are quantiles."""

FEW = "too few clusters of like size"
NO_DENOMINATOR = "the denominator is not clearly above 0"


def ratio(
    numerator: Num[np.ndarray, " cluster"],
    denominator: Num[np.ndarray, " cluster"],
    size: Num[np.ndarray, " cluster"],
    level: float = 0.95,
) -> bootstrap.Estimate:
    """The sum of one total over that of another.

    Args:
        numerator: Total of each cluster.
        denominator: Its other total; its size, for a mean over observations.
        size: Observations of the cluster, above 0.
        level: Coverage.

    Returns:
        NaN ends with a note where there are too few clusters, or where the denominator may be 0.
    """
    top, bottom = (np.asarray(x, np.float64) for x in (numerator, denominator))
    n, m, total = int(np.sum(size)), len(top), float(bottom.sum())
    if not m:
        return bootstrap.missing(bootstrap.EMPTY)
    if total <= 0:
        return bootstrap.missing(NO_DENOMINATOR, n=n, clusters=m)
    value, effective = float(top.sum()) / total, float(bootstrap.effective(size))
    if effective < MIN_EFFECTIVE:
        return bootstrap.missing(FEW, value, n, m)
    weight = bootstrap.weights(m, REPLICAS)
    if (bootstrap.replicate(bottom, weight) <= 0).any() or (total - bottom <= 0).any():
        return bootstrap.missing(NO_DENOMINATOR, value, n, m)
    without = (top.sum() - top) / (total - bottom)
    se = math.sqrt((m - 1) / m * float(np.square(without - without.mean()).sum()))
    plain = bootstrap.t_interval(value, se, effective - 1, level, n, m)
    low, high = _studentised(top, bottom, value, level)
    return bootstrap.Estimate(
        value, min(plain.low, low), max(plain.high, high), se, n, m, "", plain.df
    )


def mean(
    values: Float[np.ndarray, " row"],
    size: Num[np.ndarray, " row"],
    cluster: Num[np.ndarray, " row"],
) -> bootstrap.Estimate:
    """Mean of rows that weigh by their size, in clusters.

    Args:
        values: Finite.
        size: Observations of each row, above 0.
        cluster: What rows of one cluster share.
    """
    sums, sizes = totals(cluster, values * size, size)
    return ratio(sums, sizes, sizes)


def totals(
    cluster: Num[np.ndarray, " row"], *values: Num[np.ndarray, " row"]
) -> list[Float[np.ndarray, " cluster"]]:
    """Totals of rows by cluster."""
    _, of_cluster = np.unique(cluster, return_inverse=True)
    return [np.bincount(of_cluster, value) for value in values]


def _studentised(
    top: Float[np.ndarray, " cluster"],
    bottom: Float[np.ndarray, " cluster"],
    value: float,
    level: float,
) -> tuple[float, float]:
    """Ends of the studentised bootstrap; the value itself where nothing varies."""
    weight = bootstrap.weights(len(top), REPLICAS).astype(np.float64)
    drawn = weight @ bottom
    again = weight @ top / drawn
    squares = weight @ np.square(top) - 2 * again * (weight @ (top * bottom))
    squares += np.square(again) * (weight @ np.square(bottom))
    errors = np.sqrt(np.maximum(squares, 0.0)) / drawn
    error = float(np.sqrt(np.square(top - value * bottom).sum()) / bottom.sum())
    known = errors > 1e-9 * (error + abs(value))
    if error == 0 or not known.any():
        return value, value
    distance = (again - value)[known] / errors[known]
    below, above = np.quantile(distance, [(1 - level) / 2, (1 + level) / 2])
    # Clusters stand for a population of which they are a sample.
    error *= math.sqrt(len(top) / (len(top) - 1))
    return value - float(above) * error, value - float(below) * error
