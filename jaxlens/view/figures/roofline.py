"""The roofline: how near computations are to what arithmetic and memory allow.

Reference: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens.view.figures import files, palette

_MARKERS = {"forward": "^", "lens": "o", "sweep": "s"}


@dataclass(frozen=True)
class Roof:
    """What a device can do at one operand precision, measured.

    Attributes:
        name: For the legend; the points of the same name belong to it.
        flops: Operations a second of a plain matrix multiply.
        bandwidth: Bytes a second of a plain copy.
    """

    name: str
    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Point:
    """A computation.

    Attributes:
        roof: Name of its roof.
        stage: ``forward``, ``lens`` or ``sweep``.
        intensity: Operations for each byte that has to move, at least.
        flops: Operations a second that it reaches.
    """

    roof: str
    stage: str
    intensity: float
    flops: float


def draw(title: str, roofs: Sequence[Roof], points: Sequence[Point], path: Path) -> None:
    """Draws a roofline into a file, whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    files.require(path)
    files.save(_figure(title, roofs, points), path)


def _figure(title: str, roofs: Sequence[Roof], points: Sequence[Point]) -> Any:
    from matplotlib import figure, ticker

    drawn = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawn.add_subplot()
    low = min(point.intensity for point in points) / 8
    high = max(max(p.intensity for p in points), *(4 * r.flops / r.bandwidth for r in roofs)) * 2
    ridges = [roof.flops / roof.bandwidth for roof in roofs]
    across = np.sort([*np.geomspace(low, high, 200), *ridges])
    for roof, colour in zip(roofs, itertools.cycle(palette.LINES), strict=False):
        limit = np.minimum(roof.flops, across * roof.bandwidth)
        axes.plot(across, limit, color=colour, linewidth=1.5, label=f"limit, {roof.name}")
        for stage, marker in _MARKERS.items():
            chosen = [p for p in points if (p.roof, p.stage) == (roof.name, stage)]
            if chosen:
                axes.plot(
                    [p.intensity for p in chosen],
                    [p.flops for p in chosen],
                    marker,
                    color=colour,
                    markeredgecolor="white",
                    markersize=9,
                    label=f"{stage}, {roof.name}",
                )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.EngFormatter(unit="FLOP/s"))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("operations for each byte that has to move")
    axes.set_ylabel("operations a second")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=len(roofs))
    return drawn
