"""The figure of a table of prompts: how early, and how surely, answers come out on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlens.view import printable
from jaxlens.view.figures import palette, plots, svg

MOST = len(palette.LINES)
"""Answers that can be told apart."""

_LETTERS = 30
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
    shown = min(len(names), MOST)
    panels = _panels(summary, names[:MOST])
    title = printable.line(about)
    # A legend is drawn of several curves alone.
    if len(names) == 1:
        title += f"; answer: {_short(names[0], 0)}"
    if shown < len(names):
        title += f"; first {MOST} of {len(names)} answers"
    return plots.Plot("prompts", title, "", panels, printable.line(basis))


def _panels(summary: Mapping[str, np.ndarray], names: Sequence[str]) -> tuple[plots.Lines, ...]:
    shares, ranks = [], []
    for index, name in enumerate(names):
        mine = summary["answer"] == name
        style = plots.Style(index, _DASHES[index], _MARKS[index])
        ends = (summary["low"][mine], summary["high"][mine])
        label = f"{_short(name, index)} (n = {summary['n'][mine][0]:,})"
        shares.append(plots.Curve(label, style, summary["share"][mine], *ends))
        ranks.append(plots.bare(label, style, summary["median_rank"][mine]))
    worst = plots.ends(summary["median_rank"])[1]
    why = "" if names else "no answers were read, name their columns with --answer-column"
    has_bands = bool(np.isfinite(summary["low"]).any())
    layers = tuple(dict.fromkeys(summary["layer_name"].tolist()))
    which = f" (n = {summary['n'][0]:,})" if len(shares) == 1 else ""
    share = plots.Lines(
        f"share of prompts with the answer on top{which}",
        "layer",
        layers,
        "share, bands: 95 % interval" if has_bands else "share",
        tuple(shares),
        span=(-0.02, 1.02),
        why=why,
        percent=True,
    )
    rank = plots.Lines(
        f"median rank of the answer{which}",
        "layer",
        layers,
        "rank (1 is on top)",
        tuple(ranks),
        scale=plots.RANK,
        span=(1.4 * worst, 0.8) if math.isfinite(worst) else None,
        why=why,
    )
    return share, rank


def _short(name: str, index: int) -> str:
    """A name that has room in the legend, and stays unique there."""
    text = printable.line(name)
    return text if text == name and len(text) <= _LETTERS else f"{text[:_LETTERS]}… ({index + 1})"


def draw(summary: Mapping[str, np.ndarray], about: str, basis: str, path: Path) -> None:
    """Draws the figure into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    svg.draw(plot(summary, about, basis), path, heading=True)
