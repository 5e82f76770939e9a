"""When something happens on the way through the layers, as lines of the table."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

from jaxlens.study import table
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import bootstrap, survival
from jaxlens.study.table import Result, result


def lines(
    of: Inputs,
    question: str,
    name: str,
    counts: Int[np.ndarray, " depth"],
    what: str,
    *,
    effect: float,
    stratum: str = "all",
    happened: bool = False,
) -> list[Result]:
    """The median depth, and at each layer the share to which it has, or has not, happened.

    Args:
        of: Run.
        question: See ``table.Result``.
        name: Of the estimator; ``_median`` and ``_survival`` or ``_share`` are added.
        counts: Positions by the layer at which it happens first; the last place counts those to
            which it never does, which are last seen at the last layer.
        what: What happens, as the end of a sentence.
        effect: Design effect of the clustering, by which intervals are widened.
        stratum: See ``table.Result``.
        happened: Whether to report the share to which it has happened.
    """
    never = np.zeros(of.n_layers, np.int64)
    never[-1] = counts[-1]
    found = survival.kaplan_meier(counts[:-1], never, of.depths, design_effect=effect)
    seldom = "" if math.isfinite(found.median) else "less than half by the last layer"
    seldom = seldom if found.n else bootstrap.EMPTY
    ends = found.median_low, found.median_high
    median = bootstrap.Estimate(found.median, *ends, math.nan, found.n, 0, seldom)
    meaning = f"depth at which for half of the positions {what}; Kaplan-Meier"
    label = f"{name}_median"
    made = [result(of, question, label, meaning, median, unit="depth", stratum=stratum)]
    label = f"{name}_share" if happened else f"{name}_survival"
    return made + table.by_layer(
        of,
        question,
        label,
        f"share of positions for which {'' if happened else 'not yet '}{what}",
        [_share(found, layer, happened) for layer in range(of.n_layers)],
        unit="1",
        stratum=stratum,
        note=bootstrap.WIDENED,
    )


def _share(found: survival.Survival, layer: int, happened: bool) -> bootstrap.Estimate:
    value, low, high = (float(curve[layer]) for curve in (found.survival, found.low, found.high))
    if happened:
        value, low, high = 1 - value, 1 - high, 1 - low
    why = bootstrap.EMPTY if math.isnan(value) else ""
    if not why and math.isnan(low):
        why = "a share of 0 or 1 has no interval"
    return bootstrap.Estimate(value, low, high, float(found.se[layer]), found.n, 0, why)
