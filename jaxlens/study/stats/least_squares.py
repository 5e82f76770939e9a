"""Coefficients from sums of products: what the regressions share.

Columns are scaled to unit length before X'X is inverted. A column that is constant (beside an
intercept), or a combination of those before it, is dropped and named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxlens.study.stats import bootstrap

COLLINEAR = 1e-9
"""Share of a column's own squares below which nothing of it is left: rounding of float64 sums."""


@dataclass(frozen=True)
class Fit:
    """Coefficients of a regression; arrays are in the order of ``names``.

    Attributes:
        names: Columns.
        values: Coefficients, unit of y a unit of the column; NaN for a dropped column.
        se: Standard errors.
        low: Lower ends of the intervals.
        high: Upper ends.
        df: Degrees of freedom of each interval.
        dropped: Names of constant or collinear columns.
        n: Observations.
        clusters: Non-empty clusters; 0 where observations are taken as independent.
        note: Why there is no interval, or empty.
    """

    names: tuple[str, ...]
    values: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    df: np.ndarray
    dropped: tuple[str, ...]
    n: int
    clusters: int
    note: str = ""


def coefficient(fit: Fit, name: str) -> bootstrap.Estimate:
    """One coefficient as an estimate.

    Raises:
        ValueError: No column has that name.
    """
    j = fit.names.index(name)
    note = "constant or collinear" if name in fit.dropped else fit.note
    return bootstrap.Estimate(
        value=float(fit.values[j]),
        low=float(fit.low[j]),
        high=float(fit.high[j]),
        se=float(fit.se[j]),
        n=fit.n,
        clusters=fit.clusters,
        note=note,
        df=float(fit.df[j]),
    )


def kept_columns(xtx: np.ndarray, scale: np.ndarray) -> list[int]:
    """Columns of which something is left after those before them."""
    columns: list[int] = []
    for j in range(len(xtx)):
        left = xtx[j, j]
        if columns and left > 0:
            _, slopes = solve(xtx, xtx[:, j], columns)
            left = left - slopes @ xtx[columns, j]
        if left > COLLINEAR * scale[j]:
            columns.append(j)
    return columns


def solve(
    xtx: np.ndarray, xty: np.ndarray, columns: list[int]
) -> tuple[Float[np.ndarray, "kept kept"], Float[np.ndarray, " kept"]]:
    """Inverse of X'X and the coefficients, with columns scaled to unit length in between."""
    part = xtx[np.ix_(columns, columns)]
    length = np.sqrt(np.diag(part))
    inverse = np.linalg.inv(part / np.outer(length, length)) / np.outer(length, length)
    return inverse, inverse @ np.asarray(xty, np.float64)[columns]


def assemble(
    names: tuple[str, ...],
    columns: list[int],
    slopes: np.ndarray,
    se: np.ndarray,
    df: np.ndarray,
    level: float,
    n: int,
    clusters: int,
    note: str,
) -> Fit:
    """A fit over all names from the numbers of the kept columns."""

    def full(part: np.ndarray) -> np.ndarray:
        whole = np.full(len(names), math.nan)
        whole[columns] = part
        return whole

    reach = stats.t.ppf(0.5 + level / 2, df) * se
    dropped = tuple(name for j, name in enumerate(names) if j not in columns)
    low, high = full(slopes - reach), full(slopes + reach)
    return Fit(names, full(slopes), full(se), low, high, full(df), dropped, n, clusters, note)
