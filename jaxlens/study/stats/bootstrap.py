"""Clustered inference: a Poisson bootstrap over groups of documents.

Documents are hashed into groups, and every group-level tally has a leading axis ``group``. A
replica weighs each group by a Poisson(1) number. The numbers come from integer arithmetic on
(seed, replica, group) alone, so every run and every host draws the same ones, and tallies of any
number of workers give the same replicas.

The interval is ``value ± t * se`` with the standard deviation of the replicas. Three corrections
make it honest when documents are few or of unequal size: the variance is raised by
``m / (m - 1)``, since a bootstrap divides by m and not by m - 1; t has at most ``m - 1`` degrees of
freedom, where m is the effective number of groups, ``(sum n)^2 / sum n^2``; and where few groups
decide the variance it has fewer (see ``freedom``). The planted-effect simulations decided for it
and against the percentile interval, which is too short below some hundred groups, and against
``m - 1`` alone: where large documents also have other values, that covers as little as 82 %.

Reference:
    Hanley and MacGibbon 2006, doi:10.1016/j.cmpb.2006.04.006 (Poisson weights);
    Kish 1965, Survey Sampling (effective number);
    Carter, Schnepel and Steigerwald 2017, doi:10.1162/REST_a_00639 (its use as degrees of
    freedom).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import stats

from jaxlens.study.stats import freedom
from jaxlens.tally import hashing

REPLICAS = 500
"""Replicas unless another number is asked for."""

LEVEL = 0.95
"""Coverage of the intervals."""

MIN_CLUSTERS = 10
"""With fewer groups that hold anything there is no interval."""

MIN_EFFECTIVE = 5
"""With a smaller effective number of groups there is no interval: one document decides too much."""

FINITE_SHARE = 0.9
"""With a smaller share of replicas in which the statistic exists there is no interval."""

EXACT = 2.0**53
"""Integers below it are exact in float64."""

TOO_FEW, UNSTABLE, EMPTY = "too few clusters", "undefined in many replicas", "no data"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: The estimate; NaN where there is none.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
        se: Standard error.
        n: Number of observations.
        clusters: Groups that hold anything; 0 where observations are taken as independent.
        note: Why something is NaN, or empty.
        df: Degrees of freedom of the interval; NaN where it is not a t interval.
    """

    value: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    note: str = ""
    df: float = math.nan

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, where NaN equals NaN."""
        # Dataclasses compare NaN by identity before Python 3.13, and by value since.
        return isinstance(other, Estimate) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int | float | str | None, ...]:
        return tuple(None if value != value else value for value in vars(self).values())


def missing(note: str, value: float = math.nan, n: int = 0, clusters: int = 0) -> Estimate:
    """An estimate without an interval, and why."""
    return Estimate(value, math.nan, math.nan, math.nan, n, clusters, note)


def _thresholds() -> Int[np.ndarray, " count"]:
    """``floor(2^64 P(Poisson(1) <= k))``, in integers, so that no libm decides a weight."""
    one, terms = 1 << 128, range(40)
    factorials = [math.factorial(k) for k in terms]
    inverse_e = sum((-1) ** k * (one // factorials[k]) for k in terms)
    thresholds, reached = [], 0
    for k in range(20):
        reached += inverse_e // factorials[k]
        thresholds.append(min(reached >> 64, (1 << 64) - 1))
    return np.array(thresholds, np.uint64)


def weights(
    n_groups: int, replicas: int = REPLICAS, seed: int = 0
) -> Int[np.ndarray, "replica group"]:
    """Poisson(1) weights of groups, the same on every host.

    A weight depends on the seed, its replica and its group, on nothing else: the weights of
    fewer groups or replicas are a corner of those of more.

    Args:
        n_groups: Number of groups, empty ones too; below 2^32.
        replicas: Number of replicas.
        seed: Any integer; its lowest 64 bits count.
    """
    return _drawn(n_groups, replicas, seed & (2**64 - 1))


@functools.lru_cache(maxsize=4)  # every estimate of a study asks for the same ones
def _drawn(n_groups: int, replicas: int, seed: int) -> Int[np.ndarray, "replica group"]:
    start = hashing.mix(np.full(1, seed, np.uint64))
    replica = np.arange(replicas, dtype=np.uint64)[:, None] << np.uint64(32)
    drawn = hashing.mix(hashing.mix(start ^ (replica | np.arange(n_groups, dtype=np.uint64))))
    counts = np.searchsorted(_thresholds(), drawn, side="right").astype(np.int64)
    counts.setflags(write=False)
    return counts


def replicate(
    group_sums: Num[np.ndarray, "group ..."], weight: Int[np.ndarray, "replica group"]
) -> Num[np.ndarray, "replica ..."]:
    """Totals of every replica: the weighted sums over groups.

    Integer tallies give exact int64 sums. They go through float64 while every sum stays below
    2^53, since that product is many times faster and, being exact, depends on no order.

    Args:
        group_sums: Tally by group.
        weight: What `weights` returned.
    """
    flat = group_sums.reshape(len(group_sums), -1)
    shape = (len(weight), *group_sums.shape[1:])
    if not np.issubdtype(flat.dtype, np.integer):
        return (weight.astype(np.float64) @ flat).reshape(shape)
    largest = np.abs(flat).sum(axis=0, dtype=np.float64).max(initial=0.0)
    if largest * int(weight.max(initial=0)) < EXACT:
        sums = weight.astype(np.float64) @ flat.astype(np.float64)
        return sums.astype(np.int64).reshape(shape)
    return (weight @ flat.astype(np.int64)).reshape(shape)


def effective(sizes: Num[np.ndarray, "group ..."]) -> Num[np.ndarray, "..."]:
    """Effective number of groups, ``(sum n)^2 / sum n^2``; 0 where all are empty.

    Equal to the number of non-empty groups where they are of equal size, and smaller elsewhere.

    Args:
        sizes: Observations (or other non-negative weights) of each group.
    """
    sizes = np.asarray(sizes, np.float64)
    squares = np.square(sizes).sum(axis=0)
    return np.square(sizes.sum(axis=0)) / np.where(squares > 0, squares, 1.0)


def too_few(clusters: int, size: float) -> bool:
    """Whether there is no interval: too few groups, or effectively too few."""
    return clusters < MIN_CLUSTERS or size < MIN_EFFECTIVE


def t_interval(value: float, se: float, df: float, level: float, n: int, clusters: int) -> Estimate:
    """The interval ``value ± t(df) se``, NaN and flagged with fewer than ten clusters."""
    if not math.isfinite(value):
        return missing(EMPTY, n=n, clusters=clusters)
    if clusters < MIN_CLUSTERS:
        return missing(TOO_FEW, value, n, clusters)
    df = min(max(df, 1.0), clusters - 1.0)
    reach = float(stats.t.ppf(0.5 + level / 2, df)) * se
    return Estimate(value, value - reach, value + reach, se, n, clusters, "", df)


def interval(
    value: float,
    replicas: Float[np.ndarray, " replica"],
    counts: Num[np.ndarray, " group"],
    level: float = 0.95,
    kind: str = "t",
    left_out: Float[np.ndarray, " group"] | None = None,
) -> Estimate:
    """Interval of a statistic from its replicas.

    Args:
        value: The statistic of all groups.
        replicas: The statistic of each replica; not finite where it does not exist.
        counts: Observations of each group, empty ones too.
        level: Coverage.
        kind: ``t`` (primary) or ``percentile``.
        left_out: The statistic without each group, which says how many of them decide its
            variance; without it ``m - 1`` do.

    Returns:
        NaN ends with a note where there are too few groups, see `too_few`, or where the
        statistic does not exist in a tenth of the replicas.
    """
    counts = np.asarray(counts)
    n, clusters = int(counts.sum()), int(np.count_nonzero(counts))
    finite = np.asarray(replicas, np.float64)
    finite = finite[np.isfinite(finite)]
    if math.isfinite(value) and len(finite) < max(2, FINITE_SHARE * len(replicas)):
        return missing(UNSTABLE, value, n, clusters)
    size = float(effective(counts))
    if not math.isfinite(value):
        return missing(EMPTY, n=n, clusters=clusters)
    if too_few(clusters, size):
        return missing(TOO_FEW, value, n, clusters)
    se = float(finite.std(ddof=1)) * math.sqrt(size / (size - 1))
    if kind == "percentile":
        low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(value, float(low), float(high), se, n, clusters)
    df = size - 1 if left_out is None else freedom.of_influences(left_out - value, size)
    return t_interval(value, se, df, level, n, clusters)


def bootstrap(
    statistic: Callable[..., Float[np.ndarray, " replica"]],
    tallies: tuple[Num[np.ndarray, "group ..."], ...],
    counts: Num[np.ndarray, " group"],
    level: float = 0.95,
    kind: str = "t",
    weight: Int[np.ndarray, "replica group"] | None = None,
) -> Estimate:
    """Estimate of any statistic of group-level tallies.

    Tallies of several models over the same groups get the same weights, so a difference between
    them is paired.

    Args:
        statistic: Maps totals, each with a leading axis ``replica``, to a number a replica.
        tallies: Its arguments, by group.
        counts: Observations of each group.
        level: Coverage.
        kind: See `interval`.
        weight: What `weights` returned; by default that of 500 replicas and seed 0.
    """
    if weight is None:
        weight = weights(len(counts))
    totals = [tally.sum(axis=0)[None] for tally in tallies]
    value = float(statistic(*totals)[0])
    replicas = statistic(*(replicate(tally, weight) for tally in tallies))
    left_out = statistic(*(t - tally for t, tally in zip(totals, tallies, strict=True)))
    return interval(value, replicas, counts, level, kind, left_out)


def p_value(estimate: Estimate, null: float = 0.0) -> float:
    """Two-sided p-value of ``value = null`` that goes with the interval; NaN without one.

    At the end of the interval on the side of the null it is 0.05, and farther off it falls as that
    of t does, without degrees of freedom as that of the normal distribution: an interval whose ends
    are no multiples of one standard error has a p-value that agrees with it all the same.
    """
    reach = estimate.value - estimate.low
    if estimate.value < null:
        reach = estimate.high - estimate.value
    if not math.isfinite(reach):
        return math.nan
    distance = abs(estimate.value - null)
    if reach <= 0:
        return 1.0 if distance == 0 else 0.0
    law = stats.norm() if math.isnan(estimate.df) else stats.t(estimate.df)
    return float(2 * law.sf(distance / reach * law.isf((1 - LEVEL) / 2)))


def clustered_mean(values: Num[np.ndarray, " row"], cluster: Num[np.ndarray, " row"]) -> Estimate:
    """Mean of rows that come in clusters, such as those of one document.

    Args:
        values: Finite.
        cluster: What rows of one cluster share.
    """
    if not len(values):
        return missing(EMPTY)
    _, of_cluster = np.unique(cluster, return_inverse=True)
    sums, counts = np.bincount(of_cluster, values), np.bincount(of_cluster)

    def statistic(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        none = np.full(total.shape, np.nan)
        return np.divide(total, count, out=none, where=count > 0)

    return bootstrap(statistic, (sums, counts), counts)
