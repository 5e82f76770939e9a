"""Are rare tokens preserved more? The slope of excess preservation on rarity.

In each bin of rarity the excess preservation is

    e_b = location of ln rank(foreign) - location of ln rank(own),

the location being the mean or the median, and the foreign token one drawn from another document:
how much better a token is ranked where it was read than where it was not. **A positive slope says
that rarer tokens are preserved more**; it is in nat of rank a nat of rarity.

Bins are weighted by the square root of their tokens. The inverse variance of a mean would be the
number of tokens if tokens were independent; yet what documents and types add does not fall with
that number, and by Zipf's law a handful of function words would decide the slope. The root lies
between that and equal weights, which would follow the noise of the rarest bins. The weights come
from all groups, are the same in every replica, and use no outcome; so the slope is linear in the
e_b, and unbiased whatever the weights where the e_b lie on a line.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study.stats import binned, bootstrap

MIN_TOKENS = 50
"""Bins with fewer own or foreign tokens are left out."""

MIN_TYPES = 20
"""Bins with fewer token types are left out: a peculiarity of one would pass for one of rarity."""

MIN_BINS = 3
"""A slope through two points tests nothing."""


def excess(location: Float[np.ndarray, "... own_foreign bin"]) -> Float[np.ndarray, "... bin"]:
    """Foreign minus own: nats of rank by which the own token is ranked better."""
    return location[..., 1, :] - location[..., 0, :]


def bin_weights(
    counts: Int[np.ndarray, "own_foreign bin"],
    fewest: int = MIN_TOKENS,
    n_types: Int[np.ndarray, " bin"] | None = None,
) -> Float[np.ndarray, " bin"]:
    """Weights of the bins: root of the smaller number of tokens, 0 below ``fewest``.

    Args:
        counts: Own and foreign tokens of each bin.
        fewest: Tokens that a bin needs.
        n_types: Types of each bin, which needs `MIN_TYPES`; None to ask for none.
    """
    smaller = np.asarray(counts, np.float64).min(axis=0)
    enough = smaller >= fewest
    if n_types is not None:
        enough &= n_types >= MIN_TYPES
    return np.where(enough, np.sqrt(smaller), 0.0)


def weighted_slope(
    values: Float[np.ndarray, "... bin"],
    rarity: Float[np.ndarray, " bin"],
    weight: Float[np.ndarray, " bin"],
) -> Float[np.ndarray, "..."]:
    """Weighted least-squares slope over bins; a NaN takes its bin out of that replica.

    Returns:
        NaN where fewer than three bins are left.
    """
    values = np.asarray(values, np.float64)
    used = np.isfinite(values) & (weight > 0)
    w = np.where(used, weight, 0.0)
    total = np.where(used.any(axis=-1), w.sum(axis=-1), 1.0)
    centred = rarity - ((w * rarity).sum(axis=-1) / total)[..., None]
    spread = (w * centred * centred).sum(axis=-1)
    moment = (w * centred * np.where(used, values, 0.0)).sum(axis=-1)
    enough = (used.sum(axis=-1) >= MIN_BINS) & (spread > 0)
    return np.divide(moment, spread, out=np.full(np.shape(spread), np.nan), where=enough)


def mean_slope(
    sums: Int[np.ndarray, "group own_foreign bin"],
    counts: Int[np.ndarray, "group own_foreign bin"],
    rarity: Float[np.ndarray, " bin"],
    level: float = 0.95,
    fewest: int = MIN_TOKENS,
    n_types: Int[np.ndarray, " bin"] | None = None,
) -> bootstrap.Estimate:
    """Slope of the excess preservation of means, at one layer.

    Args:
        sums: Fixed-point sums of ln rank of the own (0) and the foreign (1) token by the rarity
            of that token.
        counts: Number of values.
        rarity: What each bin stands for, nat: its middle.
        level: Coverage.
        fewest: Bins with fewer tokens are left out.
        n_types: See `bin_weights`.
    """
    weight = bin_weights(counts.sum(axis=0), fewest, n_types)

    def statistic(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        return weighted_slope(excess(binned.mean(total, count)), rarity, weight)

    return bootstrap.bootstrap(statistic, (sums, counts), _tokens(counts), level)


def median_slope(
    histogram: Int[np.ndarray, "group own_foreign bin ln_rank"],
    edges: Float[np.ndarray, " edge"],
    rarity: Float[np.ndarray, " bin"],
    level: float = 0.95,
    fewest: int = MIN_TOKENS,
    n_types: Int[np.ndarray, " bin"] | None = None,
) -> bootstrap.Estimate:
    """Slope of the excess preservation of medians, at one layer.

    Args:
        histogram: Counts by group, own (0) and foreign (1) token, rarity and ln rank.
        edges: Edges of the bins of ln rank.
        rarity: What each bin of rarity stands for, nat.
        level: Coverage.
        fewest: Bins of rarity with fewer tokens are left out.
        n_types: See `bin_weights`.
    """
    counts = histogram.sum(axis=-1)
    weight = bin_weights(counts.sum(axis=0), fewest, n_types)

    def statistic(total: Num[np.ndarray, "..."]) -> np.ndarray:
        return weighted_slope(excess(binned.ln_rank_quantile(total, edges)), rarity, weight)

    return bootstrap.bootstrap(statistic, (histogram,), _tokens(counts), level)


def _tokens(counts: Int[np.ndarray, "group own_foreign bin"]) -> Int[np.ndarray, " group"]:
    """Own tokens of each group; the foreign ones are no further observations."""
    return counts[:, 0].sum(axis=-1)
