"""Quantiles and means of what was counted in bins.

Ranks are counted in bins of ln rank. The first bin holds rank 1 alone and stands for ln rank 0
exactly; inside every other bin ln rank is taken as uniform, as in `jaxlens.store.summary`. KL and
entropy are counted in buckets with logarithmic edges. Every function works on the last axis and
keeps the others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.tally import bins


def ratio(total: Num[np.ndarray, "..."], count: Num[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Total by count; NaN where nothing was counted."""
    none = np.full(np.broadcast_shapes(np.shape(total), np.shape(count)), np.nan)
    return np.divide(total, count, out=none, where=np.asarray(count) > 0)


def mean(sums: Int[np.ndarray, "..."], counts: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Mean of a fixed-point sum, in the unit of the quantity; NaN where nothing was counted.

    Args:
        sums: Multiples of 2^-16.
        counts: Number of values.
    """
    return ratio(np.asarray(sums) / bins.ONE, counts)


def _place(
    histogram: Num[np.ndarray, "... bin"], q: float
) -> tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."], Num[np.ndarray, "..."]]:
    """Bin in which a quantile lies, the share of the bin below it, and the number of values."""
    reached = np.cumsum(histogram, axis=-1)
    total = reached[..., -1]
    wanted = np.asarray(q * total)[..., None]
    # Where q is small an empty first bin would "reach" 0 values, so at least one is wanted.
    bin_ = np.argmax((reached >= wanted) & (reached > 0), axis=-1)
    held = np.take_along_axis(histogram, bin_[..., None], -1)[..., 0]
    before = np.take_along_axis(reached, bin_[..., None], -1)[..., 0] - held
    share = (wanted[..., 0] - before) / np.where(held > 0, held, 1)
    return bin_, np.clip(share, 0.0, 1.0), total


def ln_rank_quantile(
    histogram: Num[np.ndarray, "... bin"], edges: Float[np.ndarray, " edge"], q: float = 0.5
) -> Float[np.ndarray, "..."]:
    """Quantile of ln rank: the first bin at which a share q is reached, interpolated inside.

    Off by at most one bin. Its exponential at q = 1/2 is `jaxlens.store.summary.median_rank`.

    Args:
        histogram: Counts.
        edges: Edges of the bins, one more than bins; the first bin is rank 1 alone.
        q: Share, in [0, 1].

    Returns:
        In nat; 0 where the quantile is rank 1, NaN where nothing was counted.
    """
    edges = np.asarray(edges, np.float64)
    bin_, share, total = _place(np.asarray(histogram), q)
    inside = edges[bin_] + share * (edges[bin_ + 1] - edges[bin_])
    return np.where(total > 0, np.where(bin_ == 0, 0.0, inside), np.nan)


def bucket_quantile(
    histogram: Num[np.ndarray, "... bucket"], edges: Float[np.ndarray, " edge"], q: float = 0.5
) -> Float[np.ndarray, "..."]:
    """Quantile of what was counted in buckets with logarithmic edges.

    Inside a bucket the logarithm is taken as uniform. Where the lower edge is 0 or negative the
    value itself is; a last edge of infinity gives the bucket's lower edge.

    Args:
        histogram: Counts.
        edges: Increasing edges, one more than buckets, as the tally's float32.
        q: Share, in [0, 1].

    Returns:
        In the unit of the edges; NaN where nothing was counted.
    """
    edges = np.asarray(edges, np.float64)
    bin_, share, total = _place(np.asarray(histogram), q)
    low, high = edges[bin_], edges[bin_ + 1]
    high = np.where(np.isfinite(high), high, low)
    positive = low > 0
    ratio = np.where(positive, high, 1.0) / np.where(positive, low, 1.0)
    inside = np.where(positive, low * ratio**share, low + share * (high - low))
    return np.where(total > 0, inside, np.nan)
