"""When something happens on the way through the layers, as lines of the table.

What never happens to a position is last seen at the last layer, so no position is lost on the way:
the Kaplan-Meier curve is the share to which it has not happened yet, and Greenwood's variance that
of a share.

Reference:
    Kaplan and Meier 1958, doi:10.1080/01621459.1958.10501452; Brookmeyer and Crowley 1982,
    doi:10.2307/2530286 (interval of the median).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from jaxlens.study import table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import bootstrap, proportions
from jaxlens.study.table import Result


def lines(
    run: Inputs,
    name: str,
    counts: Int[np.ndarray, " depth"],
    *,
    effect: float,
    stratum: str = "all",
    happened: bool = False,
) -> list[Result]:
    """The median depth, and at each layer the share to which it has, or has not, happened.

    Args:
        run: Run.
        name: Of the estimators without their ending, ``_median`` and ``_survival`` or ``_share``.
        counts: Positions by the layer at which it happens first; the last entry counts those to
            which it never does.
        effect: Design effect of the clustering, by which intervals are widened.
        stratum: See ``table.Result``.
        happened: Whether to report the share to which it has happened.
    """
    n = int(counts.sum())
    remaining = proportions.log_log(n - np.cumsum(counts[:-1]), n, effect)
    depth = _median(remaining, run.depths, n)
    shares = [_share(remaining, layer, n, happened) for layer in range(run.n_layers)]
    share_name = f"{name}_share" if happened else f"{name}_survival"
    return [
        table.result(run, f"{name}_median", depth, stratum=stratum),
        *table.by_layer(run, share_name, shares, stratum=stratum),
    ]


def _median(
    remaining: proportions.Shares, depths: Float[np.ndarray, " layer"], n: int
) -> bootstrap.Estimate:
    """Where half remain; its interval ends where those of the shares cross one half."""
    curves = remaining.value, remaining.low, remaining.high
    # A share of 0 or 1 has no interval, and is its own end.
    curves = [np.where(np.isnan(curve), remaining.value, curve) for curve in curves]
    value, low, high = (first_half(curve, depths) for curve in curves)
    note = "" if math.isfinite(value) else "less than half by the last layer"
    return bootstrap.Estimate(value, low, high, math.nan, n, 0, note if n else bootstrap.EMPTY)


def first_half(share: Float[np.ndarray, " layer"], depths: Float[np.ndarray, " layer"]) -> float:
    """First depth at which a share is at most one half; NaN where it stays above."""
    reached = np.flatnonzero(share <= 0.5)
    return float(depths[reached[0]]) if len(reached) else math.nan


def _share(remaining: proportions.Shares, layer: int, n: int, happened: bool) -> bootstrap.Estimate:
    value, se, low, high = (float(curve[layer]) for curve in remaining)
    if happened:
        value, low, high = 1 - value, 1 - high, 1 - low
    note = bootstrap.EMPTY if math.isnan(value) else ""
    if not note and math.isnan(low):
        note = "a share of 0 or 1 has no interval"
    return bootstrap.Estimate(value, low, high, se, n, 0, note)
