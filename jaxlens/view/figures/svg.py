"""Figures as SVG, told apart by dashes and marks as well as by colour."""

from __future__ import annotations

import base64
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxlens.view.figures import files, layout, palette, plots

_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LETTERS = 100
"""Letters of labels that have room side by side in a whole figure."""

_LOOK: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "axes.axisbelow": True,
}


def svg(plot: plots.Plot, ends: tuple[float, float] = palette.LIGHT) -> str:
    """The figure as SVG; the same numbers give the same bytes.

    Args:
        plot: The figure.
        ends: Of the ramp of heat maps: ``palette.LIGHT``, or ``palette.DARK`` for a dark ground.
    """
    import matplotlib

    with matplotlib.rc_context(_LOOK | palette.look(ends)):
        return files.svg(figure(plot, ends))


def save(plot: plots.Plot, path: Path, own: bool = False) -> None:
    """Writes the figure with its caption into a file, whose suffix says the format.

    Args:
        plot: The figure.
        path: File.
        own: See ``files.write``.

    Raises:
        ConfigError: An unknown suffix, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    files.require(path)
    import matplotlib

    with matplotlib.rc_context(_LOOK):
        drawn = figure(plot)
        drawn.suptitle(
            f"{plot.caption}\n{plot.basis}", fontsize=_LOOK["font.size"], parse_math=False
        )
        files.save(drawn, path, own)


def address(svg: str) -> str:
    """A picture as the address of an image that lies in the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def on_white(svg: str) -> str:
    """A picture on a white ground, for papers and for pages that may be dark."""
    head, tag, rest = svg.partition("<defs>")
    return f'{head}<rect width="100%" height="100%" fill="#ffffff"/>\n {tag}{rest}'


def draw(plot: plots.Plot, path: Path, heading: bool = False) -> None:
    """Draws into a file, whose suffix says the format.

    Args:
        plot: The figure.
        path: File.
        heading: Whether its title and basis are written on it.

    Raises:
        ConfigError: An unknown suffix, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    files.require(path)
    import matplotlib

    with matplotlib.rc_context(_LOOK):
        drawn = figure(plot)
        if heading:
            above = f"{plot.title}\n{plot.basis}"
            drawn.suptitle(above, x=0.01, ha="left", fontsize=9, parse_math=False)
        files.save(drawn, path)


def figure(plot: plots.Plot, ends: tuple[float, float] = palette.LIGHT) -> Any:
    """The figure, a ``matplotlib.figure.Figure``; see `svg`."""
    from matplotlib import figure as figures

    columns = layout.legend_columns(plot)
    made = figures.Figure(figsize=layout.size(plot), layout="constrained")
    drawn: dict[str, Any] = {}
    beside = layout.beside(plot)
    before: plots.Panel | None = None
    for panel, axes in zip(
        plot.panels, made.subplots(1, len(plot.panels), squeeze=False)[0], strict=True
    ):
        axes.set_title(panel.title, parse_math=False)
        if isinstance(panel, plots.Heat):
            _heat(made, axes, panel, ends)
        else:
            is_lines = isinstance(panel, plots.Lines)
            drawn |= _lines(axes, panel) if is_lines else _points(axes, panel, beside)
            _places(axes, panel, before, beside)
        if plots.is_empty(panel):
            _nothing(axes, panel.why, beside)
        before = panel
    if len(drawn) > 1:
        made.legend(
            drawn.values(), drawn.keys(), loc="outside lower center", ncols=columns, frameon=False
        )
    return made


def _nothing(axes: Any, why: str, beside: int) -> None:
    """Says in an empty panel why it is empty."""
    words = textwrap.fill(f"nothing to draw: {why}" if why else "nothing to draw", 90 // beside)
    how = {"ha": "center", "va": "center", "color": "#555555", "parse_math": False}
    axes.text(0.5, 0.5, words, transform=axes.transAxes, **how)


def _lines(axes: Any, panel: plots.Lines) -> dict[str, Any]:
    across = np.arange(len(panel.places)) if panel.at is None else panel.at
    _reference(axes, panel, axes.axhspan, axes.axhline)
    drawn = {}
    for curve in panel.curves:
        look = _look(curve.style)
        (line,) = axes.plot(across, curve.values, label=curve.name, zorder=3, **look)
        line.set_gid(f"curve:{curve.name}")
        drawn[curve.name] = line
        if np.isfinite(curve.low).any():
            how = {"color": look["color"], "gid": f"band:{curve.name}"}
            alone = np.isfinite(curve.low) if panel.bars else _alone(curve.low)
            if not (alone.all() or panel.bars):
                axes.fill_between(across, curve.low, curve.high, alpha=0.16, lw=0, **how)
            if alone.any():  # a band has no width there
                ends = (of[alone] for of in (across, curve.low, curve.high))
                axes.vlines(*ends, alpha=0.4, linewidth=3, **how)
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.up)
    if panel.scale != plots.LINEAR:
        _logarithmic(axes, panel)
    if panel.percent:
        axes.set_yticks(_QUARTERS, [f"{100 * share:g} %" for share in _QUARTERS])
    if panel.span is not None:
        axes.set_ylim(*panel.span)
    elif panel.scale == plots.RANK:
        axes.invert_yaxis()
    return drawn


def _alone(low: Float[np.ndarray, " x"]) -> Bool[np.ndarray, " x"]:
    """Places with an interval whose neighbours have none."""
    held = np.pad(np.isfinite(low), 1)
    return held[1:-1] & ~held[:-2] & ~held[2:]


def _logarithmic(axes: Any, panel: plots.Lines) -> None:
    from matplotlib import ticker

    axes.set_yscale("log")
    least, most = sorted(panel.span) if panel.span else plots.ends(*plots.held(panel))
    if most < 100 * least:  # too few powers of ten to read a number off
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _points(axes: Any, panel: plots.Points, beside: int) -> dict[str, Any]:
    from matplotlib import ticker

    _reference(axes, panel, axes.axvspan, axes.axvline)
    drawn, up = {}, np.arange(len(panel.rows), dtype=np.float64)
    for number, curve in enumerate(panel.curves):
        look = _look(curve.style) | {"linestyle": "none"}
        # Several estimates of a line stand a little apart.
        at = up + 0.22 * (number - (len(panel.curves) - 1) / 2)
        (line,) = axes.plot(curve.values, at, label=curve.name, zorder=3, **look)
        line.set_gid(f"curve:{curve.name}")
        drawn[curve.name] = line
        if np.isfinite(curve.low).any():
            how = {"color": look["color"], "linewidth": 1.6, "gid": f"bars:{curve.name}"}
            axes.hlines(at, curve.low, curve.high, zorder=2, **how)
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)
    if panel.span is not None:
        axes.set_xlim(*panel.span)
    # As many labels as have room beside those of the rows.
    axes.xaxis.set_major_locator(
        ticker.MaxNLocator({1: 9, 2: 5}.get(beside, 3), steps=(1, 2, 2.5, 5, 10))
    )
    axes.set_xlabel(panel.across)
    return drawn


def _heat(drawn: Any, axes: Any, panel: plots.Heat, ends: tuple[float, float]) -> None:
    from matplotlib import colors

    image = axes.pcolormesh(
        panel.columns,
        panel.rows,
        np.ma.masked_invalid(panel.values),
        cmap=colors.ListedColormap(palette.ramp(ends, 256)),
        vmin=panel.ends[0],
        vmax=panel.ends[1],
        rasterized=False,
    )
    image.set_gid("heat")
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.up)
    axes.grid(visible=False)
    bar = drawn.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(panel.shade)
    bar.outline.set_visible(False)


def _reference(axes: Any, panel: plots.Lines | plots.Points, span: Any, line: Any) -> None:
    if math.isfinite(panel.region):
        span(-panel.region, panel.region, color="#000000", alpha=0.07, lw=0)
    if math.isfinite(panel.level):
        line(panel.level, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)))


def _places(
    axes: Any, panel: plots.Lines | plots.Points, before: plots.Panel | None, beside: int
) -> None:
    """Labels of the places: as many as have room, and once where panels share their lines."""
    if isinstance(panel, plots.Points):
        shared = isinstance(before, plots.Points) and before.rows == panel.rows
        labels = [""] * len(panel.rows) if shared else list(panel.rows)
        axes.set_yticks(np.arange(len(panel.rows)), labels, parse_math=False)
        axes.grid(axis="y", visible=False)
        return
    axes.grid(axis="x", visible=False)
    if panel.at is not None:
        shown = layout.apart(panel.at, panel.places, _LETTERS / beside)
        labels = [panel.places[i] for i in shown]
        axes.set_xticks(panel.at[shown], labels, parse_math=False)
        room = 0.05 * (panel.at[-1] - panel.at[0])
        axes.set_xlim(panel.at[0] - room, panel.at[-1] + room)
        return
    step = panel.every or max(1, math.ceil(len(panel.places) / 13))
    places = list(range(0, len(panel.places), step))
    labels = [panel.places[i] for i in places]
    letters = sum(len(label) + 1 for label in labels)
    axes.set_xticks(
        places, labels, rotation=90 if letters > _LETTERS / beside else 0, parse_math=False
    )


def _look(style: plots.Style) -> dict[str, Any]:
    if isinstance(style.colour, float):
        ramp = palette.ramp(count=256)
        colour = ramp[round(40 + 215 * style.colour)]
    else:
        colour = palette.LINES[style.colour % len(palette.LINES)]
    return {
        "color": colour,
        "linestyle": style.dashes,
        "marker": style.mark,
        "markersize": 3.6,
        "markerfacecolor": "white" if style.mark in "s^" else colour,
        "linewidth": 1.5,
    }
