"""The two-lines test for a U-shape along depth.

A quadratic fit calls any bent curve a U. The test asks for two straight lines of opposite sign:
an interrupted regression with a break, set by the Robin Hood procedure so that the weaker line
gets more of the flat middle.

Depth is discrete and every unit (a document or a group of documents) has a value at every layer,
which makes three things exact that the paper has to fit: the fitted curve is the mean at each
layer instead of a spline; each slope is a linear function of a unit's own curve; and its
clustered standard error is that of a weighted mean over units.

Reference:
    Simonsohn 2018, doi:10.1177/2515245918805755.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from jaxlens.study.stats import bootstrap

MIN_LAYERS = 4
"""Each line needs two layers of its own."""


@dataclass(frozen=True)
class TwoLines:
    """Result of the test.

    Attributes:
        shape: ``u``, ``inverted u`` or ``none``; ``not estimable`` without an interval.
        depth: Where the lines break; NaN where there are too few layers.
        first: Slope up to the break, unit of the curve a unit of depth.
        second: Slope from the break on.
    """

    shape: str
    depth: float
    first: bootstrap.Estimate
    second: bootstrap.Estimate


def two_lines(
    curves: Float[np.ndarray, "unit layer"],
    depths: Float[np.ndarray, " layer"],
    counts: Num[np.ndarray, " unit"],
    level: float = 0.95,
) -> TwoLines:
    """Tests the mean curve for a U-shape or an inverted one.

    Args:
        curves: Mean curve of each unit on the layers to be tested (interior ones); a unit with a
            NaN is left out.
        depths: Depth of each layer, increasing.
        counts: Tokens of each unit, its weight.
        level: Coverage of the intervals of the slopes; both must exclude 0.
    """
    curves, depths = np.asarray(curves, np.float64), np.asarray(depths, np.float64)
    counts = np.asarray(counts, np.float64)
    used = np.isfinite(curves).all(axis=1) & (counts > 0)
    curves, counts = curves[used], counts[used]
    if len(depths) < MIN_LAYERS or not len(curves):
        nothing = bootstrap.missing("too few layers" if len(curves) else bootstrap.EMPTY)
        return TwoLines("not estimable", math.nan, nothing, nothing)
    mean, se = _weighted(curves, counts)
    bend = np.polyfit(depths, mean, 2)[0]
    upward = 1.0 if bend >= 0 else -1.0
    breakpoint_ = _robin_hood(curves, depths, counts, mean * upward, se)
    first, second = (
        _slope(curves, counts, row, level) for row in _lines(depths, depths[breakpoint_])
    )
    return TwoLines(_verdict(first, second), float(depths[breakpoint_]), first, second)


def _weighted(
    values: Float[np.ndarray, "unit ..."], counts: Float[np.ndarray, " unit"]
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean over units and its clustered standard error."""
    share = counts / counts.sum()
    mean = np.tensordot(share, values, axes=1)
    size = max(float(bootstrap.effective(counts)), 1.0 + 1e-9)
    scores = share.reshape(-1, *[1] * (values.ndim - 1)) * (values - mean)
    return mean, np.sqrt(np.square(scores).sum(axis=0) * size / (size - 1))


def _robin_hood(
    curves: np.ndarray, depths: np.ndarray, counts: np.ndarray, mean: np.ndarray, se: np.ndarray
) -> int:
    """Layer of the break, for a curve turned so that it would be a U."""
    lowest = 1 + int(np.argmin(mean[1:-1]))
    flat = np.flatnonzero(mean[1:-1] <= mean[lowest] + se[lowest]) + 1
    middle = depths[flat[(len(flat) - 1) // 2]]
    slopes, errors = _weighted(curves @ _lines(depths, middle).T, counts)
    strength = np.abs(slopes) / np.where(errors > 0, errors, 1e-300)
    total = strength.sum()
    # The stronger the second line, the later the break: it gives layers to the first.
    share = strength[1] / total if total > 0 else 0.5
    return int(flat[round(share * (len(flat) - 1))])


def _lines(depths: np.ndarray, at: float) -> Float[np.ndarray, "line layer"]:
    """Rows whose products with a curve are its two slopes; each line includes the break.

    The two lines need not meet: on each side that is plain least squares.
    """
    rows = []
    for side in (depths <= at, depths >= at):
        centred = np.where(side, depths - depths[side].mean(), 0.0)
        rows.append(centred / np.square(centred).sum())
    return np.stack(rows)


def _slope(
    curves: np.ndarray, counts: np.ndarray, row: np.ndarray, level: float
) -> bootstrap.Estimate:
    value, se = _weighted(curves @ row, counts)
    df = float(bootstrap.effective(counts)) - 1
    n = int(counts.sum())
    return bootstrap.t_interval(float(value), float(se), df, level, n, len(curves))


def _verdict(first: bootstrap.Estimate, second: bootstrap.Estimate) -> str:
    if math.isnan(first.low) or math.isnan(second.low):
        return "not estimable"
    if first.high < 0 < second.low:
        return "u"
    return "inverted u" if second.high < 0 < first.low else "none"
