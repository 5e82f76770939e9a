"""What a figure is: numbers first, so that it can be drawn, tabled and checked.

Nothing here draws. A plot has panels side by side; a panel knows its own numbers, which stand below
the picture as a table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

LINEAR, LOG, RANK = "linear", "log", "rank"
"""Scales of an axis; of ranks it is logarithmic with rank 1 on top."""


@dataclass(frozen=True)
class Style:
    """How a curve can be told from others, also in grey: colour, dashes and mark.

    Attributes:
        colour: Number of a colour of ``palette.LINES``, or its place on the ramp, from 0.0 to 1.0.
        dashes: matplotlib's name of the line style.
        mark: matplotlib's name of the marker.
    """

    colour: int | float
    dashes: str = "-"
    mark: str = "o"


@dataclass(frozen=True, eq=False)
class Curve:
    """Numbers along an axis, with the ends of their intervals or of their spread.

    Attributes:
        name: For the legend; unique in its panel.
        style: How it is drawn.
        values: NaN where there is none.
        low: Lower ends; NaN where there is none.
        high: Upper ends.
    """

    name: str
    style: Style
    values: Float[np.ndarray, " x"]
    low: Float[np.ndarray, " x"]
    high: Float[np.ndarray, " x"]


@dataclass(frozen=True, eq=False)
class Lines:
    """Curves over the layers, or over any labelled axis.

    Attributes:
        title: Above the panel.
        across: Label of the horizontal axis.
        places: Labels of its places.
        up: Label of the vertical axis.
        curves: What is drawn.
        scale: Of the vertical axis.
        level: Height of a thin line of reference; NaN for none.
        region: Half the height of a grey region about 0, of effects that do not matter.
        span: Ends of the vertical axis, where the numbers themselves shall not decide them.
        every: Which places are labelled; 0 for as many as have room.
        why: Why there is no number, where there is none.
        percent: Whether the vertical axis is of shares, and labelled from 0 % to 100 %.
        at: Where the places are, rising; evenly spaced by default.
        bars: Whether intervals are bars at the places, where nothing is known between them.
    """

    title: str
    across: str
    places: tuple[str, ...]
    up: str
    curves: tuple[Curve, ...]
    scale: str = LINEAR
    level: float = math.nan
    region: float = math.nan
    span: tuple[float, float] | None = None
    every: int = 0
    why: str = ""
    percent: bool = False
    at: Float[np.ndarray, " x"] | None = None
    bars: bool = False

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heading, and a line for each place."""
        return _table(self.across, self.places, self.curves)


@dataclass(frozen=True, eq=False)
class Points:
    """Estimates below each other, each with its interval.

    Attributes:
        title: Above the panel.
        across: Label of the horizontal axis.
        rows: Labels of the lines, from top to bottom.
        curves: Numbers of the lines; several stand beside each other.
        level: Place of a thin line of reference; NaN for none.
        region: Half the width of a grey region about 0, of effects that do not matter.
        span: Ends of the horizontal axis, where the numbers themselves shall not decide them.
        why: Why there is no number, where there is none.
    """

    title: str
    across: str
    rows: tuple[str, ...]
    curves: tuple[Curve, ...]
    level: float = math.nan
    region: float = math.nan
    span: tuple[float, float] | None = None
    why: str = ""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heading, and a line for each row."""
        return _table(self.title, self.rows, self.curves)


@dataclass(frozen=True, eq=False)
class Heat:
    """A value for each pair of places.

    Attributes:
        title: Above the panel.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        columns: Left ends of the columns, and the right end of the last.
        rows: Lower ends of the rows, and the upper end of the last.
        values: NaN where there is none.
        shade: What the values are.
        ends: Values of the weakest and of the strongest colour.
        why: Why there is no number, where there is none.
    """

    title: str
    across: str
    up: str
    columns: Float[np.ndarray, " columns_plus_1"]
    rows: Float[np.ndarray, " rows_plus_1"]
    values: Float[np.ndarray, "row column"]
    shade: str
    ends: tuple[float, float]
    why: str = ""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heading, and a line for each row, from the top."""
        lines = [
            [f"{self.rows[i]:g}", *(format_number(value) for value in self.values[i])]
            for i in range(len(self.values) - 1, -1, -1)
        ]
        return [f"{self.up} \\ {self.across}", *(f"{left:g}" for left in self.columns[:-1])], lines


Panel = Lines | Points | Heat
PanelT = TypeVar("PanelT", bound=Panel)


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure.

    Attributes:
        name: Short, for links; unique in a report.
        title: Heading.
        caption: One sentence: what to see.
        panels: Side by side.
        basis: What intervals and bands are, or why there are none.
        small: Whether it is drawn for a column of a page, half as wide as others.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    basis: str
    small: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is no number to draw."""
        return all(map(is_empty, self.panels))

    @property
    def has_heat(self) -> bool:
        """Whether any of its colours is a value."""
        return any(isinstance(panel, Heat) for panel in self.panels)

    @property
    def lacking(self) -> tuple[tuple[str, str], ...]:
        """Title of each panel that has no number, and why."""
        return tuple((panel.title, panel.why) for panel in self.panels if is_empty(panel))


def _table(
    first: str, places: Sequence[str], curves: Sequence[Curve]
) -> tuple[list[str], list[list[str]]]:
    """Heading, and a line for each place with the number of every curve there."""
    lines = [
        [position, *(format_number(c.values[i], c.low[i], c.high[i]) for c in curves)]
        for i, position in enumerate(places)
    ]
    return [first, *(curve.name for curve in curves)], lines


def held(panel: Panel) -> list[np.ndarray]:
    """All values of a panel, without their intervals."""
    if isinstance(panel, Heat):
        return [panel.values]
    return [curve.values for curve in panel.curves]


def is_empty(panel: Panel) -> bool:
    """Whether a panel has no number to draw."""
    return not any(np.isfinite(values).any() for values in held(panel))


def alike(*panels: PanelT) -> tuple[PanelT, ...]:
    """Panels that are to be compared, on one axis that holds all of their numbers.

    Args:
        panels: All `Lines` of one scale, or all `Points`.
    """
    numbers = [part for panel in panels if not isinstance(panel, Heat) for part in _drawn(panel)]
    low, high = ends(*numbers)
    first = panels[0] if panels else None
    if len(panels) < 2 or not math.isfinite(low) or first is None or isinstance(first, Heat):
        return panels
    scale = first.scale if isinstance(first, Lines) else LINEAR
    if scale == LINEAR:
        room = 0.05 * (high - low) or 0.5
        span = (low - room, high + room)
    elif low <= 0:
        return panels
    else:
        span = (high * 1.25, low / 1.25) if scale == RANK else (low / 1.25, high * 1.25)
    return tuple(dataclasses.replace(panel, span=span) for panel in panels)


def basis(panels: Sequence[Panel], words: str, why: str = "") -> str:
    """What the intervals of a figure are; where it has none, that there is none.

    Args:
        panels: Of the figure.
        words: A sentence on its intervals.
        why: Why there may be none; empty where it is not known.
    """
    for panel in panels:
        for curve in () if isinstance(panel, Heat) else panel.curves:
            if (np.isfinite(curve.low) & np.isfinite(curve.high)).any():
                return words
    return f"No intervals could be estimated{f': {why}' if why else ''}."


def _drawn(panel: Lines | Points) -> list[np.ndarray]:
    """All numbers of a panel, its reference and the ends of intervals among them."""
    parts = [part for c in panel.curves for part in (c.values, c.low, c.high)]
    return [*parts, np.array([panel.level, panel.region, -panel.region])]


def ends(*values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest number; NaN where there is none."""
    numbers = np.concatenate([np.ravel(part) for part in values]) if values else np.empty(0)
    numbers = numbers[np.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else (math.nan, math.nan)


def missing(n: int) -> Float[np.ndarray, " x"]:
    """No numbers."""
    return np.full(n, np.nan)


def bare(name: str, style: Style, values: Sequence[float] | np.ndarray) -> Curve:
    """A curve without intervals."""
    numbers = np.asarray(values, np.float64)
    return Curve(name, style, numbers, missing(len(numbers)), missing(len(numbers)))


def format_number(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A number with its interval: four digits, a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    words = f"{value:.4g}"
    if math.isfinite(low) and math.isfinite(high):
        words += f" [{low:.4g}, {high:.4g}]"
    return words
