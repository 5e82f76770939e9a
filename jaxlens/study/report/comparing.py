"""The figure of two runs compared: differences over the layers, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxlens.study.comparison import compare, lines
from jaxlens.view import printable
from jaxlens.view.figures import plots

_RANKS = {"rank_input": "input token", "rank_next": "next token", "rank_final": "final token"}
_NATS = {"kl_final": "KL(last ‖ layer)", "kl_input": "KL(input ‖ layer)", "entropy": "entropy"}

_MARKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


def figure(compared: compare.Compared) -> plots.Plot:
    """Ranks, nats, and how far both runs agree; panels without a number are left out."""
    panels = [
        _means(compared, "Mean ln rank", _RANKS, 0),
        _means(compared, "Mean, nat", _NATS, len(_RANKS)),
        _agreement(compared),
    ]
    bands = "Bands: 95\u00a0% intervals, clustered by document."
    return plots.Plot(
        "comparison",
        "Two runs compared",
        f"A: {_name(compared.first.name)}; B: {_name(compared.second.name)}",
        tuple(panel for panel in panels if not plots.is_empty(panel)),
        bands if compared.from_rows else "Of totals, without intervals.",
    )


def _means(
    compared: compare.Compared, title: str, names: Mapping[str, str], first: int
) -> plots.Lines:
    labels = {(name, lines.MEAN): label for name, label in names.items()}
    curves = _curves(compared, labels, first)
    return plots.Lines(
        title, "layer", _layers(compared), "difference, A minus B", curves, level=0.0
    )


def _agreement(compared: compare.Compared) -> plots.Lines:
    labels = {
        ("top_id", lines.AGREEMENT): "same best token",
        ("rank_next", lines.CORRELATION): "rank correlation, next token",
        ("entropy", lines.CORRELATION): "rank correlation, entropy",
    }
    curves = _curves(compared, labels, len(_RANKS) + len(_NATS))
    up = "share, or Spearman's ρ"
    return plots.Lines("Agreement", "layer", _layers(compared), up, curves, level=1.0)


def _curves(
    compared: compare.Compared, labels: Mapping[tuple[str, str], str], first: int
) -> tuple[plots.Curve, ...]:
    """Curves of the labelled numbers that exist; each looks different in the whole figure."""
    curves = []
    for i, (key, label) in enumerate(labels.items(), first):
        of_key = [line for line in compared.lines if (line.quantity, line.statistic) == key]
        if of_key:
            numbers = np.array([[line.estimate, line.low, line.high] for line in of_key]).T
            dashes, mark = _MARKS[i % len(_MARKS)]
            curves.append(plots.Curve(label, plots.Style(i, dashes, mark), *numbers))
    return tuple(curves)


def _layers(compared: compare.Compared) -> tuple[str, ...]:
    return tuple(
        _name(one) if one == two else f"{_name(one)} | {_name(two)}" for one, two in compared.layers
    )


def _name(text: str) -> str:
    return printable.line(text)[:40]
