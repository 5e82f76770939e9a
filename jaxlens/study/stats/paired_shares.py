"""Differences of two shares of the same positions, with intervals over documents.

Both shares may be near 0 or 1, where ``difference ± t se`` would be too narrow, and of no width at
all where neither has an exception. The ends are recovered from the intervals of the two shares
(Wilson's, with the design effect of the groups): the distance of each share to the end of its own
interval stands for its standard error there, and the correlation is that of the groups' influences.

Reference:
    Newcombe 1998, Statistics in Medicine 17, 2635 (paired proportions, from Wilson's intervals);
    Zou and Donner 2008, Statistics in Medicine 27, 1693 (recovery of variances).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Num

from jaxlens.study.stats import bootstrap, proportions, shares


def difference(
    first: Num[np.ndarray, " group"],
    second: Num[np.ndarray, " group"],
    counts: Num[np.ndarray, " group"],
) -> bootstrap.Estimate:
    """The first share minus the second, over the same positions.

    Args:
        first: Positions of each group that count for the first share.
        second: Positions that count for the second; need not be whole.
        counts: All positions of each group; empty groups may be among them.

    Returns:
        NaN ends with a note where fewer than ten groups hold anything.
    """
    some = np.asarray(counts) > 0
    hits = [np.asarray(one, np.float64)[some] for one in (first, second)]
    sizes = np.asarray(counts, np.float64)[some]
    n, clusters = int(sizes.sum()), int(some.sum())
    if not n:
        return bootstrap.missing(bootstrap.EMPTY)
    (one, low, high), (other, other_low, other_high) = (
        proportions.of_clusters(part, sizes, shares.SPREAD) for part in hits
    )
    if math.isnan(low):
        return bootstrap.missing(bootstrap.TOO_FEW, one - other, n, clusters)
    influences = [proportions.leave_one_out(part, sizes) for part in hits]
    correlation = _correlation(*influences)
    down = _recovered(one - low, other_high - other, correlation)
    up = _recovered(high - one, other - other_low, correlation)
    se = math.sqrt(proportions.variance(influences[0] - influences[1]))
    value = one - other
    return bootstrap.Estimate(value, value - down, value + up, se, n, clusters)


def _recovered(one: float, other: float, correlation: float) -> float:
    """Half-width of a difference from those of its terms."""
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _correlation(one: Num[np.ndarray, " group"], other: Num[np.ndarray, " group"]) -> float:
    """Of what the groups do to both shares; 0 where one of them has no exceptions."""
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale > 0 else 0.0
