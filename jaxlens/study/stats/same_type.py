"""Are rarer token types kept more? Each type against itself where it was not read.

The excess preservation of a type is the mean ln rank that it has as a token of *another* document
less the mean that it has where it was read: chance, and what the unembedding prefers, have the same
type on both sides and cancel. The slope of the excess on the rarity of the type is a weighted
regression over types. **A positive slope says that rarer tokens are kept more.**

Two things are random: which types the vocabulary has, since a type may be peculiar, and which
documents were read, since what a document holds goes together. The variance is that of types plus
that of documents, less the scatter of single positions, which both contain. What documents do is
seen in rows less the means of their types (`Scores`). Without rows it is that of a regression over
positions (`Groups`), which holds more: how far types lie from the line has no part in the estimate,
as every type is compared with itself. What of this comes from positions drawn one by one is taken
out as well; what comes from documents that return to a type is not, and errs on the wide side.

Reference:
    Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136 (two-way clusters); MacKinnon and
    White 1985, doi:10.1016/0304-4076(85)90158-7 (jackknife).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from jaxlens.study.stats import bootstrap, freedom

MIN_POSITIONS = 3
"""Types with fewer positions on either side are left out."""

MIN_TYPES = 50
"""With fewer types there is no slope."""

FEW_TYPES = f"fewer than {MIN_TYPES} token types"


class Side(NamedTuple):
    """Sums over the positions of each type: where it was read, or where it was not.

    Attributes:
        count: Positions.
        total: Sum of ln rank, nat.
        square: Sum of its squares.
    """

    count: Num[np.ndarray, " type"]
    total: Float[np.ndarray, " type"]
    square: Float[np.ndarray, " type"]


class Scores(NamedTuple):
    """What each group of documents adds to the slope, of ln ranks less the means of their types.

    Attributes:
        score: Sums, nat a nat.
        count: Positions.
    """

    score: Float[np.ndarray, " group"]
    count: Num[np.ndarray, " group"]


class Groups(NamedTuple):
    """Sums of a weighted regression of ln rank on rarity, by group of documents.

    Attributes:
        product: Weights times the powers 0, 1 and 2 of rarity, of own and of foreign positions.
        outcome: Weights times ln rank times the powers 0 and 1.
        count: Positions.
    """

    product: Float[np.ndarray, "own_foreign group 3"]
    outcome: Float[np.ndarray, "own_foreign group 2"]
    count: Num[np.ndarray, " group"]


def slope(
    own: Side,
    foreign: Side,
    rarity: Float[np.ndarray, " type"],
    weight: Float[np.ndarray, " type"],
    groups: Scores | Groups,
    level: float = 0.95,
) -> bootstrap.Estimate:
    """Slope of the excess preservation on rarity over types, nat a nat.

    Args:
        own: Positions where each type was read.
        foreign: Positions that each type was drawn for from another document.
        rarity: Of the types, nat.
        weight: Of the types, 0 for those that do not count.
        groups: How documents move it.
        level: Coverage.

    Returns:
        NaN with a note where too few types or documents are there.
    """
    used = _used(own.count, foreign.count, weight)
    n, clusters = int(own.count[used].sum()), int(np.count_nonzero(groups.count))
    if used.sum() < MIN_TYPES:
        return bootstrap.missing(FEW_TYPES, n=n, clusters=clusters)
    sides = [Side(*(part[used].astype(np.float64) for part in side)) for side in (own, foreign)]
    means = [side.total / side.count for side in sides]
    excess, x, w = means[1] - means[0], rarity[used], weight[used]
    levers = _lever(x, w)
    value = float(levers @ excess)
    of_types = _left_out_types(excess, x, w) - value
    of_groups = _left_out(groups) if isinstance(groups, Scores) else _left_out_groups(groups)
    size = float(bootstrap.effective(groups.count))
    if bootstrap.too_few(clusters, size) or not np.isfinite(of_groups).all():
        return bootstrap.missing(bootstrap.TOO_FEW, value, n, clusters)
    by_type, by_group = (_variance(moved) for moved in (of_types, of_groups))
    drawn = [_within(s) if isinstance(groups, Scores) else _about_line(s, x, w) for s in sides]
    alone = sum(
        float(np.square(levers) @ (one / side.count))
        for one, side in zip(drawn, sides, strict=True)
    )
    beyond = by_group - alone
    variance = by_type + max(beyond, 0.0)
    # A part that adds nothing does not make the variance less sure either.
    parts = [(of_types, by_type, float(bootstrap.effective(w)))]
    parts += [(of_groups, by_group, size)] if beyond > 0 else []
    unsure = sum(
        part**2 / freedom.of_influences(moved, of_size, freedom.JACKKNIFE_FACTOR)
        for moved, part, of_size in parts
    )
    df = variance**2 / unsure if unsure > 0 else size - 1
    return bootstrap.t_interval(value, math.sqrt(variance), df, level, n, clusters)


def coefficients(
    own: Num[np.ndarray, " type"],
    foreign: Num[np.ndarray, " type"],
    rarity: Float[np.ndarray, " type"],
    weight: Float[np.ndarray, " type"],
) -> Float[np.ndarray, "own_foreign type"]:
    """What a nat of one position, beyond the mean of its type, adds to the slope.

    As many positions as make the mean lie closer to it than others would: of n, each deviation
    stands for ``sqrt(n / (n - 1))`` times as much.

    Args:
        own: Positions where each type was read.
        foreign: Positions that each type was drawn for from another document.
        rarity: Of the types, nat.
        weight: Of the types.

    Returns:
        Zeros for types that do not count.
    """
    used, levers = _used(own, foreign, weight), np.zeros(len(rarity))
    if used.sum() >= MIN_TYPES:
        levers[used] = _lever(rarity[used], weight[used])
    counts = np.maximum(np.stack([own, foreign]), 2).astype(np.float64)
    return np.array([[-1.0], [1.0]]) * levers / np.sqrt(counts * (counts - 1))


def _used(own: np.ndarray, foreign: np.ndarray, weight: np.ndarray) -> Bool[np.ndarray, " type"]:
    return (weight > 0) & (np.minimum(own, foreign) >= MIN_POSITIONS)


def _lever(
    x: Float[np.ndarray, " type"], w: Float[np.ndarray, " type"]
) -> Float[np.ndarray, " type"]:
    levers = w * (x - w @ x / w.sum())
    return levers / (levers @ x)


def _within(side: Side) -> Float[np.ndarray, " type"]:
    """Variance of ln rank within each type."""
    mean = side.total / side.count
    return np.maximum(side.square / side.count - mean**2, 0.0) * side.count / (side.count - 1)


def _about_line(
    side: Side, x: Float[np.ndarray, " type"], w: Float[np.ndarray, " type"]
) -> Float[np.ndarray, " type"]:
    """Mean square of ln rank of each type about the line over all of them."""
    mean = side.total / side.count
    slope = _slope(w.sum(), w @ x, w @ (x * x), w @ mean, w @ (x * mean))
    line = w @ mean / w.sum() + slope * (x - w @ x / w.sum())
    return _within(side) + np.square(mean - line)


def _left_out_types(
    y: Float[np.ndarray, " type"], x: Float[np.ndarray, " type"], w: Float[np.ndarray, " type"]
) -> Float[np.ndarray, " type"]:
    """The slope without each type."""
    sums = np.stack([w, w * x, w * x * x, w * y, w * x * y])
    return _slope(*(sums.sum(1, keepdims=True) - sums))


def _left_out(groups: Scores) -> Float[np.ndarray, " group"]:
    """How leaving out each group moves the slope: the rest weighs more by the share that it had."""
    return -groups.score / np.maximum(1 - groups.count / max(groups.count.sum(), 1), 1e-9)


def _left_out_groups(groups: Groups) -> Float[np.ndarray, " group"]:
    """How leaving out each group of documents moves the slope over positions; 0 of empty groups."""
    sums = np.concatenate([groups.product, groups.outcome], axis=2)
    without, whole = sums.sum(1, keepdims=True) - sums, sums.sum(1)
    slopes = _slope(*np.moveaxis(without, 2, 0))
    moved = slopes[1] - slopes[0] - np.subtract(*_slope(*whole.T)[::-1])
    return np.where(groups.count > 0, moved, 0.0)


def _slope(
    one: np.ndarray, x: np.ndarray, xx: np.ndarray, y: np.ndarray, xy: np.ndarray
) -> Float[np.ndarray, "..."]:
    """Weighted least squares from its sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - x * y / one) / (xx - x * x / one)


def _variance(moved: Float[np.ndarray, " cluster"]) -> float:
    """Jackknife variance; clusters that hold nothing do not move the estimate."""
    m = int(np.count_nonzero(moved))
    return (m - 1) / m * float(moved @ moved) if m else 0.0
