"""Quantiles, shares and means of what was counted in bins.

Ranks are counted in bins of ln rank. The first bin holds rank 1 alone and stands for ln rank 0
exactly; inside every other bin ln rank is taken as uniform, as in `jaxlens.store.totals`. KL and
entropy are counted in buckets with logarithmic edges. Every function works on the last axis and
keeps the others.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens import binning

QUARTILES = (0.25, 0.5, 0.75)


def mean(sums: Int[np.ndarray, "..."], counts: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Mean of a fixed-point sum, in the unit of the quantity; NaN where nothing was counted.

    Args:
        sums: Multiples of 2^-16.
        counts: Number of values.
    """
    sums, counts = np.asarray(sums), np.asarray(counts)
    none = np.full(np.broadcast_shapes(sums.shape, counts.shape), np.nan)
    scaled = sums / 2.0**binning.FIXED_POINT_BITS
    return np.divide(scaled, counts, out=none, where=counts > 0)


def _place(
    histogram: Num[np.ndarray, "... bin"], q: float
) -> tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."], Num[np.ndarray, "..."]]:
    """Bin in which a quantile lies, the share of the bin below it, and the number of values."""
    reached = np.cumsum(histogram, axis=-1)
    total = reached[..., -1]
    wanted = np.asarray(q * total)[..., None]
    # Where q is small an empty first bin would "reach" 0 values, so at least one is wanted.
    place = np.argmax((reached >= wanted) & (reached > 0), axis=-1)
    held = np.take_along_axis(histogram, place[..., None], -1)[..., 0]
    before = np.take_along_axis(reached, place[..., None], -1)[..., 0] - held
    share = (wanted[..., 0] - before) / np.where(held > 0, held, 1)
    return place, np.clip(share, 0.0, 1.0), total


def ln_rank_quantile(
    histogram: Num[np.ndarray, "... bin"], edges: Float[np.ndarray, " edge"], q: float = 0.5
) -> Float[np.ndarray, "..."]:
    """Quantile of ln rank: the first bin at which a share q is reached, interpolated inside.

    Off by at most one bin. Its exponential at q = 1/2 is `jaxlens.store.totals.median_rank`.

    Args:
        histogram: Counts.
        edges: Edges of the bins, one more than bins; the first bin is rank 1 alone.
        q: Share, in [0, 1].

    Returns:
        In nat; 0 where the quantile is rank 1, NaN where nothing was counted.
    """
    edges = np.asarray(edges, np.float64)
    place, share, total = _place(np.asarray(histogram), q)
    inside = edges[place] + share * (edges[place + 1] - edges[place])
    return np.where(total > 0, np.where(place == 0, 0.0, inside), np.nan)


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
    place, share, total = _place(np.asarray(histogram), q)
    low, high = edges[place], edges[place + 1]
    high = np.where(np.isfinite(high), high, low)
    positive = low > 0
    ratio = np.where(positive, high, 1.0) / np.where(positive, low, 1.0)
    inside = np.where(positive, low * ratio**share, low + share * (high - low))
    return np.where(total > 0, inside, np.nan)


def share_within(
    histogram: Num[np.ndarray, "... bin"], edges: Float[np.ndarray, " edge"], k: int
) -> Float[np.ndarray, "..."]:
    """Share of ranks that are at most k.

    Exact for k = 1 and wherever a bin ends at k. The bin that k cuts is split over the ranks that
    it can hold, each weighted by 1/rank (uniform in ln rank); so the error is at most that bin's
    share.

    Args:
        histogram: Counts.
        edges: Edges of the bins of ln rank, float32 as in the tally.
        k: Rank, at least 1.

    Returns:
        In [0, 1]; NaN where nothing was counted.
    """
    histogram, edges = np.asarray(histogram), np.asarray(edges, np.float32)
    # A rank beyond the last edge was counted in the last bin; all of it lies within such a k.
    k = min(k, math.ceil(math.exp(float(edges[-1]))) + 1)
    cut = int(_bins(np.array([k]), edges)[0])
    last = max(k, math.ceil(math.exp(float(edges[cut + 1]))) + 1)
    ranks = np.arange(1, last + 1)
    inside = ranks[_bins(ranks, edges) == cut]
    part = (1 / inside[inside <= k]).sum() / (1 / inside).sum()
    total = histogram.sum(axis=-1)
    held = histogram[..., :cut].sum(axis=-1) + part * histogram[..., cut]
    none = np.full(np.shape(total), np.nan)
    return np.divide(held, total, out=none, where=total > 0)


def _bins(ranks: Int[np.ndarray, " n"], edges: Float[np.ndarray, " edge"]) -> Int[np.ndarray, " n"]:
    """Bin of each rank, by the rule of `jaxlens.binning.ln_rank_bins`."""
    found = np.searchsorted(edges, np.log(ranks).astype(np.float32), side="right") - 1
    return np.minimum(found, len(edges) - 2)


def midpoints(edges: Float[np.ndarray, " edge"], first: float | None = None) -> np.ndarray:
    """Middle of each bin, float64.

    Args:
        edges: Finite edges.
        first: What the first bin stands for, where that is not its middle: 0 for ln rank.
    """
    edges = np.asarray(edges, np.float64)
    middle = (edges[:-1] + edges[1:]) / 2
    if first is not None:
        middle[0] = first
    return middle


def histogram_mean(
    histogram: Num[np.ndarray, "... bin"], values: Float[np.ndarray, " bin"]
) -> Float[np.ndarray, "..."]:
    """Mean of what each bin stands for; NaN where nothing was counted.

    Args:
        histogram: Counts.
        values: Of the bins, as `midpoints` gives them; those of empty bins do not matter.
    """
    histogram = np.asarray(histogram)
    total = histogram.sum(axis=-1)
    summed = (histogram * np.where(np.isfinite(values), values, 0.0)).sum(axis=-1)
    none = np.full(np.shape(total), np.nan)
    return np.divide(summed, total, out=none, where=total > 0)
