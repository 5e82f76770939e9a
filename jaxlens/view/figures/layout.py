"""How large a figure is, so that its labels and its legend have room."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlens.view.figures import plots

_WIDTH, _HEIGHT = 8.6, 3.1
"""Inches of a figure; that of many points, or of a long legend, is higher."""

_SMALL_WIDTH, _SMALL_HEIGHT = 3.9, 2.4
"""Inches of a small figure, whose letters can be read on a page of that width."""

_AROUND = 0.9
"""Inches above and below the points: title, ticks and the label of the axis."""

_POINT_ROW, _LABEL_LINE, _LEGEND_ROW = 0.23, 0.15, 0.22

_MAX_COLUMNS = 4
_LETTERS, _SAMPLE = 112, 9
"""Letters of a legend that have room side by side, and how many the sample of a curve takes."""


def size(plot: plots.Plot) -> tuple[float, float]:
    """Width and height of the figure, inches."""
    columns = legend_columns(plot)
    legend = math.ceil(len(_names(plot)) / columns) * _LEGEND_ROW if columns else 0.0
    points = max(
        (_row(p) * len(p.rows) for p in plot.panels if isinstance(p, plots.Points)), default=0.0
    )
    width, height = (_SMALL_WIDTH, _SMALL_HEIGHT) if plot.small else (_WIDTH, _HEIGHT)
    return width, max(height, _AROUND + points) + legend


def beside(plot: plots.Plot) -> int:
    """How many panels of the width of this plot's stand side by side in a whole figure."""
    return len(plot.panels) * (2 if plot.small else 1)


def _row(panel: plots.Points) -> float:
    """Height of each row, whose label may have several lines; and one stays empty."""
    lines = max((label.count("\n") + 1 for label in panel.rows), default=1)
    return max(_POINT_ROW, (lines + 1) * _LABEL_LINE) if lines > 1 else _POINT_ROW


def legend_columns(plot: plots.Plot) -> int:
    """Columns of the legend, as many as have room side by side; 0 where nothing has a name."""
    names = _names(plot)
    columns = min(len(names), _MAX_COLUMNS)
    while columns > 1 and _letters(names, columns) > _LETTERS:
        columns -= 1
    return columns


def _names(plot: plots.Plot) -> list[str]:
    """Names of the curves, each once."""
    curves = [c for p in plot.panels if not isinstance(p, plots.Heat) for c in p.curves]
    return list(dict.fromkeys(curve.name for curve in curves))


def _letters(names: list[str], columns: int) -> int:
    """Letters of the widest name of each column, with the samples beside them."""
    parts = np.array_split(np.array([len(name) for name in names]), columns)  # as matplotlib does
    return sum(int(part.max()) + _SAMPLE for part in parts)


def apart(at: Float[np.ndarray, " x"], labels: Sequence[str], letters: float) -> list[int]:
    """Places whose labels have room beside each other, the first and the last among them.

    Args:
        at: Where the places are.
        labels: Of the places.
        letters: That have room along the whole axis.
    """
    letter = (at[-1] - at[0]) / letters
    shown: list[int] = []
    for i in dict.fromkeys((0, len(at) - 1, *range(len(at)))):
        if all(
            abs(at[i] - at[j]) >= letter * (2 + (len(labels[i]) + len(labels[j])) / 2)
            for j in shown
        ):
            shown.append(i)
    return sorted(shown)
