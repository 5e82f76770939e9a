"""Rank correlations from joint histograms.

Observations in one bin are ties: they share the mid-rank of the bin, so the results equal
Spearman's coefficient of the expanded bin numbers exactly. The partial coefficient is the
ordinary first-order partial correlation of those mid-ranks,

    ρ(a, b | c) = (ρ_ab - ρ_ac ρ_bc) / sqrt((1 - ρ_ac²) (1 - ρ_bc²)),

that is, the correlation of what linear regression on the mid-ranks of c leaves of the mid-ranks
of a and b. It is 0 for independence given c only as far as c acts linearly on the rank scale.

Reference:
    Spearman 1904, doi:10.2307/1412159; Kendall 1948, Rank Correlation Methods (mid-ranks,
    partial coefficients); Fisher 1924, Metron 3, 329 (partial correlations on the scale of atanh).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Num

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


def partial_of_groups(
    xtx: Num[np.ndarray, "group 3 3"],
    xty: Num[np.ndarray, "group 3"],
    yty: Num[np.ndarray, " group"],
    counts: Num[np.ndarray, " group"],
) -> bootstrap.Estimate:
    """Partial (Pearson) correlation of y with the last column, given the one before it.

    Replicas are of groups of documents, on Fisher's scale, so that the interval stays within
    [-1, 1].

    Args:
        xtx: Products of an intercept, the column that is held, and the other.
        xty: Products with y.
        yty: Squares of y.
        counts: Observations.
    """
    # Products of intercept, held column, other column and y.
    whole = np.concatenate([xtx, xty[:, :, None]], axis=2)
    last = np.concatenate([xty, yty[:, None]], axis=1)
    whole = np.concatenate([whole, last[:, None]], axis=1)

    def fisher(sums: np.ndarray) -> Float[np.ndarray, " replica"]:
        n = np.where(sums[:, 0, 0] > 0, sums[:, 0, 0], 1.0)
        means = sums[:, 0, 1:] / n[:, None]
        covariance = sums[:, 1:, 1:] / n[:, None, None] - means[:, :, None] * means[:, None]
        spread = np.sqrt(np.maximum(np.einsum("rii->ri", covariance), 0.0))
        scale = spread[:, :, None] * spread[:, None]
        rho = np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.arctanh(partial(rho[:, 1, 2], rho[:, 0, 2], rho[:, 0, 1]))

    estimate = bootstrap.bootstrap(fisher, (whole,), counts)
    value, low, high = (math.tanh(x) for x in (estimate.value, estimate.low, estimate.high))
    se = estimate.se * (1 - value * value)
    return dataclasses.replace(estimate, value=value, low=low, high=high, se=se)
