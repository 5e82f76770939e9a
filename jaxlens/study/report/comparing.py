"""The figure of two runs compared: differences over the layers, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxlens.study.comparison import compare
from jaxlens.view import visible
from jaxlens.view.figures import plots

_RANKS = {"rank_input": "input token", "rank_next": "next token", "rank_final": "final token"}
_NATS = {"kl_final": "KL(last ‖ layer)", "kl_input": "KL(input ‖ layer)", "entropy": "entropy"}

_MARKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


def figure(found: compare.Compared) -> plots.Plot:
    """Ranks, nats, and how far both runs agree; panels without a number are left out."""
    panels = [
        _means(found, "Mean ln rank", _RANKS, 0),
        _means(found, "Mean, nat", _NATS, len(_RANKS)),
        _agreement(found),
    ]
    drawn = [
        panel for panel in panels if any(np.isfinite(curve.values).any() for curve in panel.curves)
    ]
    bands = "Bands: 95\u00a0% intervals, clustered by document."
    return plots.Plot(
        "comparison",
        "Two runs compared",
        f"A: {_name(found.first.name)}; B: {_name(found.second.name)}",
        tuple(drawn),
        bands if found.from_rows else "Of totals, without intervals.",
    )


def _means(
    found: compare.Compared, title: str, names: Mapping[str, str], first: int
) -> plots.Lines:
    chosen = {(name, compare.MEAN): label for name, label in names.items()}
    return plots.Lines(
        title,
        "layer",
        _layers(found),
        "difference, A minus B",
        _curves(found, chosen, first),
        level=0.0,
    )


def _agreement(found: compare.Compared) -> plots.Lines:
    chosen = {
        ("top_id", compare.AGREEMENT): "same best token",
        ("rank_next", compare.CORRELATION): "rank correlation, next token",
        ("entropy", compare.CORRELATION): "rank correlation, entropy",
    }
    curves = _curves(found, chosen, len(_RANKS) + len(_NATS))
    up = "share, or Spearman's ρ"
    return plots.Lines("Agreement", "layer", _layers(found), up, curves, level=1.0)


def _curves(
    found: compare.Compared, chosen: Mapping[tuple[str, str], str], first: int
) -> tuple[plots.Curve, ...]:
    """Curves of those that there are; each has a look of its own in the whole figure."""
    curves = []
    for place, ((name, statistic), label) in enumerate(chosen.items(), first):
        lines = [one for one in found.lines if (one.quantity, one.statistic) == (name, statistic)]
        if lines:
            numbers = np.array([[line.estimate, line.low, line.high] for line in lines]).T
            dashes, mark = _MARKS[place % len(_MARKS)]
            curves.append(plots.Curve(label, plots.Style(place, dashes, mark), *numbers))
    return tuple(curves)


def _layers(found: compare.Compared) -> tuple[str, ...]:
    return tuple(
        _name(one) if one == two else f"{_name(one)} | {_name(two)}" for one, two in found.layers
    )


def _name(words: str) -> str:
    return visible.line(words)[:40]
