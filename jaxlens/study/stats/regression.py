"""Least squares from sums of products, with the intervals of clustered data.

The tally holds X'X, X'y and y'y, so no regression needs rows. Columns that are constant (beside
an intercept), or a combination of those before them, are dropped and named. Within-type slopes
subtract what each type's sums explain, which equals a dummy for every type exactly.

Clustered intervals are the CR1 sandwich with t of ``G* - 1`` degrees of freedom, G* the effective
number of clusters for that coefficient: ``(sum_g γ_g)² / sum_g γ_g²`` where γ_g is what cluster g
adds to the sum of squares of the column after the others are partialled out. With G - 1 instead,
clusters of unequal size make intervals too short.

Reference:
    Cameron and Miller 2015, doi:10.3368/jhr.50.2.317; Carter, Schnepel and Steigerwald 2017,
    doi:10.1162/REST_a_00639 (G*); Frisch and Waugh 1933, doi:10.2307/1907330 (within slopes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from jaxlens.study.stats import bootstrap, least_squares

TOO_FEW = "too few observations"


def within(
    xtx: Num[np.ndarray, "column column"],
    xty: Num[np.ndarray, " column"],
    yty: float,
    type_counts: Num[np.ndarray, " type"],
    type_x: Num[np.ndarray, "type column"],
    type_y: Num[np.ndarray, " type"],
    names: Sequence[str],
    level: float = 0.95,
) -> least_squares.Fit:
    """Within-type (fixed-effect) slopes: what a dummy for every type leaves of the columns.

    Args:
        xtx: Sums of products of the columns, without an intercept.
        xty: Sums of products with y.
        yty: Sum of squares of y.
        type_counts: Observations of each type.
        type_x: Sum of each column over each type.
        type_y: Sum of y over each type.
        names: Of the columns.
        level: Coverage; observations are taken as independent, unlike in
            `jaxlens.study.stats.within_type`.
    """
    counts = np.asarray(type_counts, np.float64)
    used = counts > 0
    scale = 1 / np.sqrt(counts[used])
    x = np.asarray(type_x, np.float64)[used] * scale[:, None]
    y = np.asarray(type_y, np.float64)[used] * scale
    raw = np.asarray(xtx, np.float64)
    left_xtx, left_xty = raw - x.T @ x, np.asarray(xty, np.float64) - x.T @ y
    n = int(counts.sum())
    columns = least_squares.kept_columns(left_xtx, np.diag(raw))
    inverse, slopes = least_squares.solve(left_xtx, left_xty, columns)
    df = n - int(used.sum()) - len(columns)
    residual = max(float(yty) - float(y @ y) - float(slopes @ left_xty[columns]), 0.0)
    variance = residual / df if df > 0 else math.nan
    se = np.sqrt(np.diag(inverse) * variance)
    note = "" if df > 0 else TOO_FEW
    freedom = np.full(len(columns), max(df, 1.0))
    return least_squares.assemble(tuple(names), columns, slopes, se, freedom, level, n, 0, note)


def clustered(
    xtx: Num[np.ndarray, "group column column"],
    xty: Num[np.ndarray, "group column"],
    counts: Num[np.ndarray, " group"],
    names: Sequence[str],
    level: float = 0.95,
) -> least_squares.Fit:
    """Ordinary least squares with the CR1 interval of clusters, from sums by group.

    Args:
        xtx: Sums of products of the columns by group of documents.
        xty: Sums of products with y; y'y is not needed.
        counts: Observations of each group.
        names: Of the columns.
        level: Coverage.
    """
    xtx, xty = np.asarray(xtx, np.float64), np.asarray(xty, np.float64)
    whole, names = xtx.sum(axis=0), tuple(names)
    columns = least_squares.kept_columns(whole, np.diag(whole))
    inverse, slopes = least_squares.solve(whole, xty.sum(axis=0), columns)
    n, clusters = int(np.sum(counts)), int(np.count_nonzero(counts))
    part = xtx[:, columns][:, :, columns]
    scores = (xty[:, columns] - part @ slopes) @ inverse
    free = n - len(columns)
    if clusters < bootstrap.MIN_CLUSTERS or free < 1:
        nothing = np.full(len(columns), math.nan)
        note = bootstrap.TOO_FEW if free > 0 else TOO_FEW
        return least_squares.assemble(
            names, columns, slopes, nothing, nothing, level, n, clusters, note
        )
    factor = clusters / (clusters - 1) * (n - 1) / free
    se = np.sqrt(factor * np.square(scores).sum(axis=0))
    influence = np.einsum("ia,gij,ja->ga", inverse, part, inverse, optimize=True)
    sizes = bootstrap.effective(np.maximum(influence, 0.0))
    df = np.array(
        [max(bootstrap.freedom(*part), 1.0) for part in zip(scores.T, sizes, strict=True)]
    )
    return least_squares.assemble(names, columns, slopes, se, df, level, n, clusters, "")
