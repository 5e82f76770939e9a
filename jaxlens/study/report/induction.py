"""Figures of Q3 on corpora of twins: planted copies, by frequency and lag."""

from __future__ import annotations

import math

from jaxlens.study.estimators import RETRIEVED
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_LAGS = (plots.Style(0, "-", "o"), plots.Style(2, "--", "s"), plots.Style(3, ":", "^"))
_COPY, _CONTROL = plots.Style(0, "-", "o"), plots.Style(3, "--", "s")


def figures(source: series.Source) -> list[plots.Plot]:
    """Ranks of copies and controls by depth, and retrieval by frequency and lag."""
    return [*(_ranks(source, kind) for kind in source.kinds), _cells(source)]


def _ranks(source: series.Source, kind: series.Kind) -> plots.Plot:
    """A panel for each lag."""
    panels = []
    for stratum in source.strata("twins_mean_ln_rank_copy"):
        curves = tuple(
            source.curve(
                f"twins_mean_ln_rank_{name}", kind, stratum, scale=math.exp, name=name, style=style
            )
            for name, style in (("copy", _COPY), ("control", _CONTROL))
        )
        why = source.why("twins_mean_ln_rank_copy", "twins_gain")
        panels.append(
            plots.Lines(stratum, "layer", source.layers, "rank", curves, plots.RANK, why=why)
        )
    return plots.Plot(
        f"planted-{kind.kind}",
        f"Ranks of planted copies by depth: {kind.name}",
        "Geometric mean rank of the next token where it repeats an earlier one, and of the same "
        "tokens at their first occurrence.",
        plots.alike(*panels),
        series.basis(source, panels, how=", clustered by sequence"),
    )


def _cells(source: series.Source) -> plots.Plot:
    measures = {
        f"twins_retrieved_{RETRIEVED}": "share retrieved",
        f"twins_depth_difference_{RETRIEVED}": "depth of retrieval, copy minus control",
        "twins_gain": "control minus copy, nat of rank",
    }
    strata = [s for s in source.strata("twins_gain") if s.startswith("frequency bin")]
    bins = tuple(dict.fromkeys(s.split(",")[0] for s in strata))
    lags = tuple(dict.fromkeys(s.partition(", ")[2] for s in strata))
    panels = []
    for estimator, title in measures.items():
        curves = []
        for lag, style in zip(lags, _LAGS, strict=False):
            rows = [(estimator, f"{name}, {lag}" if lag else name) for name in bins]
            points = source.points(rows, source.kinds[0])
            values = points.values, points.low, points.high
            curves.append(plots.Curve(lag or "all lags", style, *values))
        why = source.why(estimator, "twins_gain")
        panels.append(plots.Points(title, title, bins, tuple(curves), why=why))
    return plots.Plot(
        "cells",
        "Planted copies by frequency",
        "For each bin of frequency, rarest first: the share of copies that reach the top "
        f"{RETRIEVED}, the depth from which they stay there minus that of the control, one layer "
        "beyond the last where they never do, and ln rank of the control minus that of the copy.",
        tuple(panels),
        series.basis(source, panels, "Bars", ", clustered by sequence"),
    )
