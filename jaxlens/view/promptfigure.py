"""The figure of a table of prompts: how early, and how surely, answers come out on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlens.view import drawing, palette, plots

MOST = len(palette.LINES)
"""Answers that can be told apart."""

_MARKS = "os^Dvxo"
_DASHES = ("-", "--", ":", "-.", "-", "--", ":")


def plot(summary: Mapping[str, np.ndarray], about: str, basis: str) -> plots.Plot:
    """The figure as numbers.

    Args:
        summary: From ``PromptTable.summary``.
        about: What was read, for the title.
        basis: What the intervals are.
    """
    names = list(dict.fromkeys(summary["answer"].tolist()))
    shown = names[:MOST]
    layers = tuple(dict.fromkeys(summary["layer_name"].tolist()))
    shares, ranks = [], []
    for place, name in enumerate(shown):
        mine = summary["answer"] == name
        style = plots.Style(place, _DASHES[place], _MARKS[place])
        ends = (summary["low"][mine], summary["high"][mine])
        shares.append(plots.Curve(name, style, summary["share"][mine], *ends))
        ranks.append(plots.bare(name, style, summary["median_rank"][mine]))
    title = about if len(shown) == len(names) else f"{about}; first {MOST} of {len(names)} answers"
    return plots.Plot(
        name="prompts",
        title=title,
        caption="",
        panels=(
            plots.Lines(
                "share of prompts with the answer on top",
                "layer",
                layers,
                "share, bands: 95 % interval",
                tuple(shares),
                span=(-0.02, 1.02),
            ),
            plots.Lines(
                "median rank of the answer",
                "layer",
                layers,
                "rank (1 is on top)",
                tuple(ranks),
                scale=plots.RANK,
            ),
        ),
        basis=basis,
    )


def draw(summary: Mapping[str, np.ndarray], about: str, basis: str, path: Path) -> None:
    """Draws the figure into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    drawing.draw(plot(summary, about, basis), path, heading=True)
