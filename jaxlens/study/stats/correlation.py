"""Rank correlations from joint histograms.

Observations in one bin are ties: they share the mid-rank of the bin, so the results equal
Spearman's coefficient of the expanded bin numbers exactly. The partial coefficient is the
ordinary first-order partial correlation of those mid-ranks,

    ρ(a, b | c) = (ρ_ab - ρ_ac ρ_bc) / sqrt((1 - ρ_ac²) (1 - ρ_bc²)),

that is, the correlation of what linear regression on the mid-ranks of c leaves of the mid-ranks
of a and b. It is 0 for independence given c only as far as c acts linearly on the rank scale.

Reference:
    Spearman 1904, doi:10.2307/1412159; Kendall 1948, Rank Correlation Methods (mid-ranks,
    partial coefficients); Bonett and Wright 2000, doi:10.1007/BF02294183 (variance).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from jaxlens.study.stats import bootstrap


def mid_ranks(counts: Num[np.ndarray, "... bin"]) -> Float[np.ndarray, "... bin"]:
    """Mean rank, from 1, of the observations in each bin."""
    counts = np.asarray(counts, np.float64)
    return np.cumsum(counts, axis=-1) - counts / 2 + 0.5


def spearman(joint: Num[np.ndarray, "... a b"]) -> Float[np.ndarray, "..."]:
    """Spearman's coefficient of two binned variables.

    Args:
        joint: Counts.

    Returns:
        In [-1, 1]; NaN where fewer than two bins of either variable hold anything.
    """
    joint = np.asarray(joint, np.float64)
    rows, columns = joint.sum(axis=-1), joint.sum(axis=-2)
    total = rows.sum(axis=-1)
    # Mid-ranks have the mean (n + 1) / 2 whatever the ties.
    centre = (total[..., None] + 1) / 2
    a, b = mid_ranks(rows) - centre, mid_ranks(columns) - centre
    covariance = np.einsum("...ij,...i,...j->...", joint, a, b, optimize=True)
    spread = np.sqrt((rows * a * a).sum(axis=-1) * (columns * b * b).sum(axis=-1))
    none = np.full(np.shape(total), np.nan)
    return np.clip(np.divide(covariance, spread, out=none, where=spread > 0), -1.0, 1.0)


def partial(
    ab: Float[np.ndarray, "..."], ac: Float[np.ndarray, "..."], bc: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """First-order partial correlation of a and b given c; NaN where c determines either."""
    ab, ac, bc = (np.asarray(x, np.float64) for x in (ab, ac, bc))
    left = (1 - ac * ac) * (1 - bc * bc)
    none = np.full(np.broadcast_shapes(ab.shape, left.shape), np.nan)
    # Rounding leaves about 1e-16 of a coefficient of exactly one.
    correlation = np.divide(ab - ac * bc, np.sqrt(np.abs(left)), out=none, where=left > 1e-12)
    return np.clip(correlation, -1.0, 1.0)


def partial_spearman(
    joint: Num[np.ndarray, "... frequency surprisal ln_rank"],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Partial rank correlations of ln rank with surprisal given frequency, and the mirror.

    Args:
        joint: Counts over bins of (log frequency, surprisal, ln rank).

    Returns:
        ρ(ln rank, surprisal | frequency) and ρ(ln rank, frequency | surprisal).
    """
    joint = np.asarray(joint)
    frequency_surprisal = spearman(joint.sum(axis=-1))
    frequency_rank = spearman(joint.sum(axis=-2))
    surprisal_rank = spearman(joint.sum(axis=-3))
    return (
        partial(surprisal_rank, frequency_rank, frequency_surprisal),
        partial(frequency_rank, surprisal_rank, frequency_surprisal),
    )


def interval(
    rho: float, n: int, controls: int = 0, design_effect: float = 1.0, level: float = 0.95
) -> bootstrap.Estimate:
    """Large-sample interval by Fisher's z, with variance ``(1 + ρ²/2) / (n_eff - 3 - controls)``.

    Args:
        rho: Coefficient.
        n: Observations.
        controls: Variables held fixed.
        design_effect: Clustered variance over that of independent observations, see
            `design_effect`; the effective n is n divided by it.
        level: Coverage.

    Returns:
        NaN ends where the effective n is below 10 + controls.
    """
    effective = n / design_effect
    if not math.isfinite(rho):
        return bootstrap.missing(bootstrap.EMPTY, n=n)
    if not effective >= 10 + controls:
        return bootstrap.missing("too few observations", rho, n)
    se = math.sqrt((1 + rho * rho / 2) / (effective - 3 - controls))
    reach = float(stats.norm.ppf(0.5 + level / 2)) * se
    centre = math.atanh(min(max(rho, -1 + 1e-15), 1 - 1e-15))
    low, high = math.tanh(centre - reach), math.tanh(centre + reach)
    # An extreme coefficient, and its rounding, stays inside its own interval.
    return bootstrap.Estimate(rho, min(low, rho), max(high, rho), (1 - rho * rho) * se, n, 0, "")


def design_effect(
    counts: Num[np.ndarray, " group"], sums: Num[np.ndarray, " group"], square_sum: float
) -> float:
    """How much clustering inflates the variance of a mean; at least 1.

    The linearised variance of a ratio mean over groups, divided by that of as many independent
    observations. It is that of one variable's mean; for a correlation it is an approximation, and
    the larger one of the two variables errs on the careful side.

    Args:
        counts: Observations of each group.
        sums: Sum of the variable in each group, in its own unit.
        square_sum: Sum of its squares over all groups.

    Returns:
        NaN with fewer than two groups or without variance.
    """
    counts, sums = np.asarray(counts, np.float64), np.asarray(sums, np.float64)
    total, clusters = counts.sum(), int(np.count_nonzero(counts))
    if clusters < 2:
        return math.nan
    mean = sums.sum() / total
    independent = square_sum / total - mean * mean
    if independent <= 0:
        return math.nan
    clustered = np.square(sums - counts * mean).sum() / total * clusters / (clusters - 1)
    return max(1.0, float(clustered / independent))
