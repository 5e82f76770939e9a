"""A comparison for print: the difference on top, below it both sides with their best tokens."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.view.comparison import difference
from jaxlens.view.comparison.comparison import Comparison
from jaxlens.view.figures import files, palette
from jaxlens.view.prompt import metrics, raster

_SIZE = 6.5
_FONT: dict[str, Any] = {
    "fontsize": _SIZE,
    "fontfamily": "DejaVu Sans Mono",
    "parse_math": False,
}
_MOST_TOKENS = 64
_CELL = 0.56, 0.19
"""Inches of a cell."""

_TWO_LINES = 0.3
"""Height of a cell that names a best token and a number."""


def draw(shown: Comparison, path: Path, metric: str | None = None) -> None:
    """Draws a comparison into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, too many tokens, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    plot(shown, metric, path)


def plot(shown: Comparison, metric: str | None, path: str | Path | None) -> Any:
    """The figure, and its file; see ``Comparison.plot``."""
    target = None if path is None else files.require(path)
    drawn = figure(shown, metric)
    if target is not None:
        files.save(drawn, target)
    return drawn


def figure(shown: Comparison, metric: str | None = None) -> Any:
    """The figure, a ``matplotlib.figure.Figure`` of three panels.

    Raises:
        ConfigError: Too many tokens, no such metric, or matplotlib is not installed.
    """
    files.require_library()
    from jaxlens.view.figures import canvas

    if len(shown) > _MOST_TOKENS:
        raise errors.ConfigError(
            f"a figure of {len(shown):,} tokens",
            f"choose at most {_MOST_TOKENS}: --tokens 0:{_MOST_TOKENS}, or part()",
        )
    shown_difference = shown.difference(metric)
    width = 1.9 + _CELL[0] * max(len(shown), 8)
    rows = [_CELL[1], *(_TWO_LINES if _is_named(shown, side) else _CELL[1] for side in (0, 1))]
    heights = [0.95 + row * len(shown.pairs) for row in rows]
    drawn = canvas.Figure(figsize=(width, 0.6 + sum(heights)), layout="constrained")
    axes = drawn.subplots(3, 1, height_ratios=heights)
    _panel(drawn, axes[0], shown, _difference_cells(shown_difference), shown_difference.title())
    for side in (0, 1):
        cells = _side_cells(shown, shown_difference.metric, side)
        best = "best token, and " if _is_named(shown, side) else ""
        title = f"{'AB'[side]}: {best}{shown_difference.metric.title}"
        _panel(drawn, axes[side + 1], shown, cells, title, side)
    drawn.supxlabel(_caption(shown, int(width * 17)), fontsize=_SIZE + 0.5, parse_math=False)
    return drawn


def _caption(shown: Comparison, letters: int) -> str:
    one, two = shown.names
    words = [f"A: {one}", f"B: {two}", "blue: greater in A, orange: greater in B", *shown.notes]
    return textwrap.fill("; ".join(words), max(letters, 40))


_Cells = tuple[np.ndarray, list[list[str]], list[str], tuple[float, float], list[tuple[float, str]]]
"""Places on a ramp, words, the ramp, its ends, and its ticks."""


def _difference_cells(values: difference.Difference) -> _Cells:
    words = [[values.format_number(float(value)) for value in line] for line in values.values]
    return (
        values.strength(values.values),
        words,
        palette.diverging(count=255),
        (-1, 1),
        values.ticks(),
    )


def _side_cells(shown: Comparison, metric: metrics.Metric, side: int) -> _Cells:
    values = shown.values(metric.name, side)
    mine = shown.sides[side].view(metric.name)
    words = [[raster.short(float(value), metric.kind) for value in line] for line in values]
    if _is_named(shown, side):
        words = [
            [f"{name}\n{word}" if name else word for name, word in zip(*pair, strict=True)]
            for pair in zip(_best(shown, side), words, strict=True)
        ]
    return mine.strength(values), words, palette.ramp(count=256), (0, 1), mine.ticks()


def _is_named(shown: Comparison, side: int) -> bool:
    """Whether the best tokens of a side were read."""
    return "top_id" in shown.readings[side]


def _best(shown: Comparison, side: int) -> list[list[str]]:
    """The best token of each cell as it is shown; empty where the side has no token."""
    ids, places = shown.readings[side]["top_id"], shown.columns[:, side].tolist()
    return [
        [
            raster.cut(shown.sides[side].name(ids[pair[side], at, 0])) if at >= 0 else ""
            for at in places
        ]
        for pair in shown.pairs
    ]


def _panel(
    drawn: Any,
    axes: Any,
    shown: Comparison,
    cells: _Cells,
    title: str,
    side: int | None = None,
) -> None:
    from matplotlib import colors

    strengths, words, ramp, (low, high), ticks = cells
    image = axes.imshow(
        np.ma.masked_invalid(strengths),
        cmap=colors.ListedColormap(ramp).with_extremes(bad="#eeeeee"),
        vmin=low,
        vmax=high,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    for layer, at in np.ndindex(strengths.shape):
        strength = (float(strengths[layer, at]) - low) / (high - low)
        ink = (
            "#000000"
            if np.isnan(strength)
            else palette.ink(ramp[round(strength * (len(ramp) - 1))])
        )
        word = "\n".join(raster.cut(line) for line in words[layer][at].split("\n"))
        axes.text(at, layer, word, color=ink, ha="center", va="center", clip_on=True, **_FONT)
    axes.set_xticks(np.arange(len(shown)), _tokens(shown, side), **_FONT)
    axes.set_yticks(np.arange(len(shown.pairs)), _layers(shown, side), **_FONT)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=_SIZE + 2, parse_math=False)
    bar = drawn.colorbar(image, ax=axes, pad=0.01, fraction=0.03, ticks=[t for t, _ in ticks])
    bar.ax.set_yticklabels([words for _, words in ticks], fontsize=_SIZE)
    bar.outline.set_visible(False)


def _layers(shown: Comparison, side: int | None) -> list[str]:
    if side is None:
        return list(shown.layer_names)
    return [shown.sides[side].layers[pair[side]] for pair in shown.pairs]


def _tokens(shown: Comparison, side: int | None) -> list[str]:
    """Labels of the columns: the token of a side, or of both where they differ."""
    tokens = [shown.token(at) for at in range(len(shown))]
    if side is not None:
        return [raster.cut(pair[side]) for pair in tokens]
    return ["\n".join(raster.cut(word) for word in dict.fromkeys(pair) if word) for pair in tokens]
