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
from jaxtyping import Int, Num

from jaxlens.study import resample, squares


def ols(
    xtx: Num[np.ndarray, "column column"],
    xty: Num[np.ndarray, " column"],
    yty: float,
    n: int,
    names: Sequence[str],
    level: float = 0.95,
) -> squares.Fit:
    """Ordinary least squares of independent observations.

    Args:
        xtx: Sums of products of the columns, an intercept among them if one is wanted.
        xty: Sums of products with y.
        yty: Sum of squares of y.
        n: Observations.
        names: Of the columns.
        level: Coverage.
    """
    xtx = np.asarray(xtx, np.float64)
    return _classical(xtx, xty, yty, n, 0, np.diag(xtx), tuple(names), level)


def within(
    xtx: Num[np.ndarray, "column column"],
    xty: Num[np.ndarray, " column"],
    yty: float,
    type_counts: Num[np.ndarray, " type"],
    type_x: Num[np.ndarray, "type column"],
    type_y: Num[np.ndarray, " type"],
    names: Sequence[str],
    level: float = 0.95,
) -> squares.Fit:
    """Within-type (fixed-effect) slopes: what a dummy for every type leaves of the columns.

    Args:
        xtx: Sums of products of the columns, without an intercept.
        xty: Sums of products with y.
        yty: Sum of squares of y.
        type_counts: Observations of each type.
        type_x: Sum of each column over each type.
        type_y: Sum of y over each type.
        names: Of the columns.
        level: Coverage; observations are taken as independent, see `within_clustered`.
    """
    counts = np.asarray(type_counts, np.float64)
    used = counts > 0
    scale = 1 / np.sqrt(counts[used])
    x = np.asarray(type_x, np.float64)[used] * scale[:, None]
    y = np.asarray(type_y, np.float64)[used] * scale
    raw = np.asarray(xtx, np.float64)
    left_y = float(yty) - float(y @ y)
    n, types = int(counts.sum()), int(used.sum())
    return _classical(
        raw - x.T @ x,
        np.asarray(xty) - x.T @ y,
        left_y,
        n,
        types,
        np.diag(raw),
        tuple(names),
        level,
    )


def _classical(
    xtx: np.ndarray,
    xty: np.ndarray,
    yty: float,
    n: int,
    absorbed: int,
    scale: np.ndarray,
    names: tuple[str, ...],
    level: float,
) -> squares.Fit:
    kept = squares.kept_columns(xtx, scale)
    inverse, slopes = squares.solve(xtx, xty, kept)
    df = n - absorbed - len(kept)
    residual = max(float(yty) - float(slopes @ np.asarray(xty, np.float64)[kept]), 0.0)
    variance = residual / df if df > 0 else math.nan
    se = np.sqrt(np.diag(inverse) * variance)
    note = "" if df > 0 else "too few observations"
    return squares.assemble(
        names, kept, slopes, se, np.full(len(kept), max(df, 1.0)), level, n, 0, note
    )


def clustered(
    xtx: Num[np.ndarray, "group column column"],
    xty: Num[np.ndarray, "group column"],
    counts: Num[np.ndarray, " group"],
    names: Sequence[str],
    level: float = 0.95,
) -> squares.Fit:
    """Ordinary least squares with the CR1 interval of clusters, from sums by group.

    Args:
        xtx: Sums of products of the columns by group of documents.
        xty: Sums of products with y; y'y is not needed.
        counts: Observations of each group.
        names: Of the columns.
        level: Coverage.
    """
    xtx = np.asarray(xtx, np.float64)
    scale = np.diag(xtx.sum(axis=0))
    return _sandwich(xtx, np.asarray(xty, np.float64), counts, 0, scale, tuple(names), level)


def within_clustered(
    types: Int[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    x: Num[np.ndarray, "row column"],
    y: Num[np.ndarray, " row"],
    names: Sequence[str],
    level: float = 0.95,
) -> squares.Fit:
    """Within-type slopes from rows, with the CR1 interval of clusters.

    Types and clusters cross: a type occurs in many documents. The small-sample factor counts the
    types as parameters, as a regression on dummies does.

    Args:
        types: Type of each row.
        groups: Cluster of each row.
        x: Columns, without an intercept; rows with a NaN are left out.
        y: Outcome.
        names: Of the columns.
        level: Coverage.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    used = np.isfinite(x).all(axis=1) & np.isfinite(y)
    x, y = x[used], y[used]
    _, place, counts = np.unique(np.asarray(types)[used], return_inverse=True, return_counts=True)
    scale = np.square(x).sum(axis=0)
    means = [np.bincount(place, column) / counts for column in (*x.T, y)]
    x = x - np.stack([mean[place] for mean in means[:-1]], axis=1)
    y = y - means[-1][place]
    xtx, xty, sizes = group_products(np.asarray(groups)[used], x, y)
    return _sandwich(xtx, xty, sizes, len(counts), scale, tuple(names), level)


def group_products(
    groups: Int[np.ndarray, " row"], x: Num[np.ndarray, "row column"], y: Num[np.ndarray, " row"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X'X, X'y and the number of rows of each group that occurs, in increasing order."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    width = x.shape[1]
    xtx = np.empty((len(counts), width, width))
    xty = np.empty((len(counts), width))
    for i in range(width):
        xty[:, i] = np.bincount(place, x[:, i] * y, len(counts))
        for j in range(i + 1):
            xtx[:, i, j] = xtx[:, j, i] = np.bincount(place, x[:, i] * x[:, j], len(counts))
    return xtx, xty, counts


def _sandwich(
    xtx: np.ndarray,
    xty: np.ndarray,
    counts: np.ndarray,
    absorbed: int,
    scale: np.ndarray,
    names: tuple[str, ...],
    level: float,
) -> squares.Fit:
    kept = squares.kept_columns(xtx.sum(axis=0), scale)
    inverse, slopes = squares.solve(xtx.sum(axis=0), xty.sum(axis=0), kept)
    n, clusters = int(np.sum(counts)), int(np.count_nonzero(counts))
    part = xtx[:, kept][:, :, kept]
    scores = (xty[:, kept] - part @ slopes) @ inverse
    free = n - absorbed - len(kept)
    if clusters < resample.FEWEST_CLUSTERS or free < 1:
        nothing = np.full(len(kept), math.nan)
        note = resample.TOO_FEW if free > 0 else "too few observations"
        return squares.assemble(names, kept, slopes, nothing, nothing, level, n, clusters, note)
    factor = clusters / (clusters - 1) * (n - 1) / free
    se = np.sqrt(factor * np.square(scores).sum(axis=0))
    influence = np.einsum("ia,gij,ja->ga", inverse, part, inverse, optimize=True)
    df = np.maximum(resample.effective(np.maximum(influence, 0.0)) - 1, 1.0)
    return squares.assemble(names, kept, slopes, se, df, level, n, clusters, "")
