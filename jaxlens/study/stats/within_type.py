"""Within-type slopes from tallies, with clustered intervals from the sampled rows.

The slope itself is exact: sums of products over all rows, less what the types' own sums explain.
Its interval needs to know how much the rows of a document go together, which no sum over types
tells. The reservoir does: it is an even sample of all rows, so the variance of the score is
estimated from its rows and from its pairs of rows of one document, each weighted by the inverse of
its chance to be drawn.

Reference:
    Horvitz and Thompson 1952, doi:10.1080/01621459.1952.10483446 (weights of sampled pairs);
    Cameron and Miller 2015, doi:10.3368/jhr.50.2.317 (cluster-robust variance, CR3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study.stats import bootstrap, least_squares, regression

MIN_SAMPLED = 200
"""With fewer sampled rows there is no interval."""

MIN_SHARE = 1 / 8
"""With a smaller share of sampled rows there is no interval: the sample holds too few pairs of rows
of one document to estimate how strongly these are correlated. At a share of 1/200 such intervals
cover 74 % of planted truths."""

TOO_SMALL_SHARE = "fewer than an eighth of the rows are sampled"


@dataclass(frozen=True)
class Sample:
    """Sampled rows, the columns of the regression among them.

    Attributes:
        types: Token of each row.
        clusters: Document of each row.
        x: Columns.
        y: Outcome.
    """

    types: Int[np.ndarray, " row"]
    clusters: Int[np.ndarray, " row"]
    x: Float[np.ndarray, "row column"]
    y: Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Sums:
    """Sums over all rows, in natural units.

    Attributes:
        xtx: Products of the columns, without an intercept.
        xty: Products with the outcome.
        yty: Squares of the outcome.
        type_counts: Rows of each type.
        type_x: Columns by type.
        type_y: Outcome by type.
    """

    xtx: Float[np.ndarray, "column column"]
    xty: Float[np.ndarray, " column"]
    yty: float
    type_counts: Num[np.ndarray, " type"]
    type_x: Float[np.ndarray, "type column"]
    type_y: Float[np.ndarray, " type"]


def slope(
    sums: Sums, sample: Sample, names: tuple[str, ...], name: str, level: float = 0.95
) -> bootstrap.Estimate:
    """The within-type slope of one column, given the others.

    Args:
        sums: Over all rows.
        sample: An even sample of them, or all.
        names: Of the columns.
        name: The column.
        level: Coverage.

    Returns:
        NaN with a note where the column does not vary within types, or fewer than ten documents
        were sampled.
    """
    fit = regression.within(
        sums.xtx, sums.xty, sums.yty, sums.type_counts, sums.type_x, sums.type_y, names, level
    )
    estimate = least_squares.coefficient(fit, name)
    clusters = len(np.unique(sample.clusters))
    if not math.isfinite(estimate.value):
        return bootstrap.missing(
            estimate.note or "constant within types", n=fit.n, clusters=clusters
        )
    if len(sample.y) < MIN_SAMPLED:
        return bootstrap.missing("too few sampled rows", estimate.value, fit.n, clusters)
    if len(sample.y) < MIN_SHARE * fit.n:
        return bootstrap.missing(TOO_SMALL_SHARE, estimate.value, fit.n, clusters)
    used = [i for i, column in enumerate(names) if column not in fit.dropped]
    columns, residual = _centred(sums, sample, used, np.asarray(fit.values)[used])
    inverse = np.linalg.inv(_within(sums)[np.ix_(used, used)])
    pull = columns @ inverse[used.index(names.index(name))]
    _, document = np.unique(sample.clusters, return_inverse=True)
    # What a document does to the slope it is compared with, as in a jackknife: without this a few
    # large documents would make the interval too short.
    leverage = np.bincount(document, np.square(pull)) / np.square(pull).sum()
    influence = pull * residual / (1 - np.minimum(leverage, 0.9))[document]
    variance = _clustered(influence, document, min(1.0, len(sample.y) / fit.n))
    size = max(float(bootstrap.effective(np.bincount(document))), 2.0)
    types = int(np.count_nonzero(sums.type_counts))
    se = math.sqrt(variance * (fit.n - 1) / max(fit.n - types - len(used), 1))
    return bootstrap.t_interval(estimate.value, se, size - 1, level, fit.n, clusters)


def _within(sums: Sums) -> Float[np.ndarray, "column column"]:
    """Products of the columns, less what the types explain."""
    used = sums.type_counts > 0
    x = sums.type_x[used] / np.sqrt(sums.type_counts[used])[:, None]
    return sums.xtx - x.T @ x


def _centred(
    sums: Sums, sample: Sample, used: list[int], slopes: Float[np.ndarray, " kept"]
) -> tuple[Float[np.ndarray, "row kept"], Float[np.ndarray, " row"]]:
    """Sampled columns less the means of their types over all rows, and what the slopes leave."""
    counts = np.maximum(sums.type_counts, 1)
    x = sample.x[:, used] - (sums.type_x[:, used] / counts[:, None])[sample.types]
    y = sample.y - (sums.type_y / counts)[sample.types]
    return x, y - x @ slopes


def _clustered(
    influence: Float[np.ndarray, " row"], of_cluster: Int[np.ndarray, " row"], share: float
) -> float:
    """Variance of the sum of all rows' influences, from a sample that holds this share of them.

    The pairs of one document may add up to less than nothing by chance; that rows of a document
    contradict each other is not believed.
    """
    alone = float(np.square(influence).sum()) / share
    together = float(np.square(np.bincount(of_cluster, influence)).sum())
    pairs = (together - float(np.square(influence).sum())) / share**2
    return alone + max(pairs, 0.0)
