"""How much of a quantity is a property of the token type: one-way analysis of variance.

Types are token ids; the quantity is ln rank (in nat) at each layer. The input is what the tally
by token id holds: the number of tokens, their sum and the sum of their squares.

Reference:
    Hays 1963, Statistics for Psychologists (omega squared); Searle, Casella and McCulloch 1992,
    Variance Components (unbalanced one-way random model); Efron and Stein 1981,
    doi:10.1214/aos/1176345462 (jackknife).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from jaxlens.study.stats import bootstrap


def omega_squared(
    counts: Num[np.ndarray, " type"],
    sums: Num[np.ndarray, "type layer"],
    squares: Num[np.ndarray, "type layer"],
    level: float = 0.95,
) -> list[bootstrap.Estimate]:
    """ω²: share of the variance of tokens that lies between types, by layer.

        ω² = (SS_between - (k - 1) MS_within) / (SS_total + MS_within)

    Tokens weigh alike, so frequent types weigh more. The interval is a delete-one-type jackknife:
    types are random, that is, it is about other types of the same kind, and tokens of one type
    stay together. Where a handful of types holds most tokens it covers 92 % instead of 95 % in
    simulations. ω² can be slightly negative where types do not matter; it is not clipped.

    Args:
        counts: Tokens of each type; types without any are left out.
        sums: Sums, in the unit of the quantity.
        squares: Sums of squares.
        level: Coverage.

    Returns:
        One estimate a layer; ``clusters`` counts types. NaN where no type has two tokens or
        nothing varies.
    """
    counts = np.asarray(counts, np.float64)
    used = counts > 0
    n, s = counts[used], np.asarray(sums, np.float64)[used]
    q = np.asarray(squares, np.float64)[used]
    if not len(n):
        return [bootstrap.missing(bootstrap.EMPTY) for _ in range(sums.shape[1])]
    return [_omega_estimate(n, s[:, layer], q[:, layer], level) for layer in range(s.shape[1])]


def _omega_estimate(
    n: Float[np.ndarray, " type"],
    s: Float[np.ndarray, " type"],
    q: Float[np.ndarray, " type"],
    level: float,
) -> bootstrap.Estimate:
    # Centring on the grand mean first keeps the digits that the sums of squares would cancel.
    mean = s.sum() / n.sum()
    q, s = q - 2 * mean * s + n * mean * mean, s - n * mean
    between = s * s / n
    totals = [np.asarray(x.sum()) for x in (n, s, q, between)]
    k, size = len(n), int(totals[0])
    value = float(_omega(float(k), *totals))
    parts = zip(totals, (n, s, q, between), strict=True)
    left_out = _omega(k - 1.0, *(total - part for total, part in parts))
    left_out = left_out[np.isfinite(left_out)]
    if not np.isfinite(value) or len(left_out) < 2:
        return bootstrap.missing(bootstrap.EMPTY, value, size, k)
    se = float(np.sqrt((k - 1) * left_out.var()))
    return bootstrap.t_interval(value, se, float(bootstrap.effective(n)) - 1, level, size, k)


def _omega(
    k: float, n: np.ndarray, s: np.ndarray, q: np.ndarray, a: np.ndarray
) -> Float[np.ndarray, "..."]:
    """ω² from the number of types and of tokens, their sum, squares, and ``sum s_t^2 / n_t``."""
    degrees = n - k
    total = q - s * s / np.where(n > 0, n, 1.0)
    within = (q - a) / np.where(degrees > 0, degrees, 1.0)
    scale = total + within
    omega = (a - (q - total) - (k - 1) * within) / np.where(scale > 0, scale, 1.0)
    return np.where((degrees > 0) & (scale > 1e-12 * np.maximum(np.abs(q), 1e-300)), omega, np.nan)
