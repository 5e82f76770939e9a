"""How large a figure is, so that its labels and its legend have room."""

from __future__ import annotations

import math

import numpy as np

from jaxlens.view.figures import plots

_WIDTH, _HEIGHT = 8.6, 3.1
"""Inches of a figure; that of many points, or of a long legend, is higher."""

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
    return _WIDTH, max(_HEIGHT, _AROUND + points) + legend


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
