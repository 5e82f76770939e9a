"""Within-type slopes: what a dummy for every token type leaves, with intervals over documents.

The slope is exact from tallies: sums of products over all rows, less what the types' own sums
explain. Its interval asks how the slope moves without each group of documents. That needs products
of columns from which the means of the types were subtracted row by row, by group: a second pass
over the rows of a run, once the means are known (``demeaned``), or means that were fixed before.

Fixed means are not those of all rows. With ẋ and e the column and the residual about the latter,
and a_t, b_t how far these lie from the fixed ones, a group has the score ``Σ (ẋ + a_t)(e + b_t) =
Σ ẋ e + Σ_t (a_t E_gt + b_t X_gt + N_gt a_t b_t)``, with E, X, N sums of e, ẋ and 1 by type. Over
all groups only the last term adds up to something: what the products add up to beyond those about
all rows' means. Each group gives back its share of that by size (`about_own_means`), and the
scores add up to 0. What remains of the terms has no mean and is not taken out: a type that the
fixed means saw n times adds about 1/n to its part of the variance.

Reference:
    Frisch and Waugh 1933, doi:10.2307/1907330; Cameron and Miller 2015, doi:10.3368/jhr.50.2.317
    (cluster-robust variance, CR3); Carter, Schnepel and Steigerwald 2017,
    doi:10.1162/REST_a_00639 (effective number of clusters).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study.stats import bootstrap, freedom, least_squares, regression

NO_ROWS = "needs rows, or a new run with --tallies study --rows none"
CONSTANT = "constant within types"


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


class Groups(NamedTuple):
    """Sums by group of documents, of columns less the means of their types.

    Attributes:
        xtx: Products of the columns.
        xty: Products with the outcome.
        count: Rows.
    """

    xtx: Float[np.ndarray, "group column column"]
    xty: Float[np.ndarray, "group column"]
    count: Int[np.ndarray, " group"]


def about_own_means(groups: Groups, sums: Sums) -> Groups:
    """Groups less their shares, by size, of what products about fixed means add up to too much.

    Args:
        groups: Of columns less fixed means of their types.
        sums: Over all rows, which say what the products about the types' own means add up to.
    """
    count = np.maximum(sums.type_counts, 1)[:, None]
    means = sums.type_x / count
    excess_xtx = groups.xtx.sum(0) - (sums.xtx - sums.type_x.T @ means)
    excess_xty = groups.xty.sum(0) - (sums.xty - sums.type_y @ means)
    share = groups.count / max(groups.count.sum(), 1)
    return Groups(
        xtx=groups.xtx - share[:, None, None] * excess_xtx,
        xty=groups.xty - share[:, None] * excess_xty,
        count=groups.count,
    )


def slope(
    sums: Sums, groups: Groups | None, names: tuple[str, ...], name: str, level: float = 0.95
) -> bootstrap.Estimate:
    """The within-type slope of one column, given the others.

    Args:
        sums: Over all rows.
        groups: By group of documents; None of a run without rows, which has no interval.
        names: Of the columns.
        name: The column.
        level: Coverage.

    Returns:
        NaN with a note where the column does not vary within types, or where too few documents
        are there.
    """
    fit = regression.within(
        sums.xtx, sums.xty, sums.yty, sums.type_counts, sums.type_x, sums.type_y, names, level
    )
    estimate = least_squares.coefficient(fit, name)
    if not math.isfinite(estimate.value):
        return bootstrap.missing(estimate.note or CONSTANT, n=fit.n)
    if groups is None:
        return bootstrap.missing(NO_ROWS, estimate.value, fit.n)
    used = [i for i, column in enumerate(names) if column not in fit.dropped]
    moved, size = _left_out(groups, used, used.index(names.index(name)))
    clusters = int(np.count_nonzero(groups.count))
    if bootstrap.too_few(clusters, size):
        return bootstrap.missing(bootstrap.TOO_FEW, estimate.value, fit.n, clusters)
    types = int(np.count_nonzero(sums.type_counts))
    # The means of the types were fitted too, which made what is left smaller.
    fitted = (fit.n - 1) / max(fit.n - types - len(used), 1)
    se = math.sqrt((clusters - 1) / clusters * float(moved @ moved) * fitted)
    df = freedom.of_influences(moved, size, freedom.JACKKNIFE_FACTOR)
    return bootstrap.t_interval(estimate.value, se, df, level, fit.n, clusters)


def _left_out(groups: Groups, used: list[int], j: int) -> tuple[Float[np.ndarray, " group"], float]:
    """How leaving out each group moves a slope, and the effective number of groups for it.

    Types keep their means: that these were estimated is of second order.
    """
    part = groups.xtx[:, used][:, :, used]
    whole = part.sum(0)
    length = np.sqrt(np.diag(whole))
    # Rounding may leave something of a column in the sums over all rows and nothing in its rows.
    length = np.where(length > 0, length, 1.0)
    part, y = part / np.outer(length, length)[None], groups.xty[:, used] / length[None]
    whole = part.sum(0)
    inverse = np.linalg.pinv(whole, hermitian=True)
    # A column may be held by one group alone; without it there is nothing to divide by.
    without = np.linalg.pinv(whole[None] - part, hermitian=True)
    left = np.einsum("gc,gc->g", without[:, j], y.sum(0)[None] - y)
    moved = (left - inverse[j] @ y.sum(0)) / length[j]
    share = np.einsum("i,gij,j->g", inverse[j], part, inverse[j], optimize=True)
    size = float(bootstrap.effective(np.maximum(share, 0.0)))
    return np.where(groups.count > 0, moved, 0.0), size
