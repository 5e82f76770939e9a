"""Curves of the totals that every run keeps, for runs that cannot be studied."""

from __future__ import annotations

import numpy as np

from jaxlens.store import reader
from jaxlens.view import printable
from jaxlens.view.figures import plots

_RANKS = {"median_rank_input": "of the input", "median_rank_final": "of the final best token"}
_MEANS = {
    "mean_kl_final": "KL(last ‖ layer)",
    "mean_kl_input": "KL(input ‖ layer)",
    "mean_entropy": "entropy",
}
_STYLES = (plots.Style(0, "-", "o"), plots.Style(3, "--", "s"), plots.Style(2, ":", "^"))


def findings(run: reader.Run) -> list[str]:
    """Medians of ranks at the ends and in the middle, in plain words."""
    summary = run.summary()
    if not summary:
        return []
    layers = list(summary)
    places = {"at the input layer": 0, "at mid depth": len(layers) // 2, "at the last layer": -1}
    sentences = []
    for key, name in _RANKS.items():
        values = {where: summary[layers[i]].get(key) for where, i in places.items()}
        if all(value is not None for value in values.values()):
            text = ", ".join(f"{value:,.4g} {where}" for where, value in values.items())
            sentences.append(f"The median rank {name} is {text} (1 is the best).")
    return sentences


def figures(run: reader.Run) -> list[plots.Plot]:
    """Medians of ranks, and means of divergences and entropy, by layer."""
    summary = run.summary()
    panels = [
        _panel(summary, _RANKS, "median rank", "rank", plots.RANK),
        _panel(summary, _MEANS, "means", "nat", plots.LINEAR),
    ]
    return [
        plots.Plot(
            "layers",
            "Ranks, divergences and entropy by depth",
            "How the ranks of the input and of the final prediction, the divergences and the "
            "entropy change with depth, over all rows of the run.",
            tuple(panel for panel in panels if panel.curves),
            "Totals of all positions; intervals need --tallies study or full rows.",
        )
    ]


def _panel(
    summary: dict[str, dict[str, float]], names: dict[str, str], title: str, up: str, scale: str
) -> plots.Lines:
    layers = tuple(printable.line(layer)[:40] for layer in summary)
    curves = []
    for (key, name), style in zip(names.items(), _STYLES, strict=False):
        values = np.array([summary[layer].get(key, np.nan) for layer in summary])
        if np.isfinite(values).any():
            curves.append(plots.bare(name, style, values))
    return plots.Lines(title, "layer", layers, up, tuple(curves), scale)
