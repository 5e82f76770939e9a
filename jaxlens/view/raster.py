"""Rasters of a prompt for print: layers by tokens, the last layer on top.

The first view names the best token of each cell, as the figures of the 2020 post do; the others
write their numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.view import metrics, palette, pictures, prompt, visible

VIEWS = ("p_top", "rank_final", "kl_final", "rank_input", "kl_input")
"""What a figure shows unless it is told otherwise."""

MOST_TOKENS = 64
"""Tokens that a figure holds; more could not be read."""

_FONT, _SIZE, _NAME = "DejaVu Sans Mono", 6.5, 8
_CELL = 0.50, 0.19
"""Inches of a cell, and characters of a token that fit there."""


def draw(
    shown: prompt.Prompt, path: Path, decoder: str, views: Sequence[str] = VIEWS, caption: str = ""
) -> None:
    """Draws views of a prompt, one below the other, into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, too many tokens, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    pictures.require(path)
    pictures.save(figure(shown, decoder, views, caption), path)


def figure(
    shown: prompt.Prompt, decoder: str, views: Sequence[str] = VIEWS, caption: str = ""
) -> Any:
    """The figure, a ``matplotlib.figure.Figure``.

    Args:
        shown: Prompt of at most ``MOST_TOKENS``.
        decoder: Which reading.
        views: Names of metrics.
        caption: Below; by default model, decoder and what the colours mean.

    Raises:
        ConfigError: Too many tokens, or an unknown view.
    """
    from matplotlib import figure as figures

    if len(shown) > MOST_TOKENS:
        raise errors.ConfigError(
            f"a figure of {len(shown):,} tokens",
            f"choose at most {MOST_TOKENS} of them, for instance --tokens 0:{MOST_TOKENS}",
        )
    chosen = [metrics.find(name, shown.vocab_size) for name in views]
    width = 1.7 + _CELL[0] * max(len(shown), 6)
    height = 0.35 + len(chosen) * (0.95 + _CELL[1] * len(shown.layers))
    made = figures.Figure(figsize=(width, height), layout="constrained")
    grid = np.atleast_1d(made.subplots(len(chosen), 1))
    for place, (axes, metric) in enumerate(zip(grid, chosen, strict=True)):
        _panel(made, axes, shown, decoder, metric, named=place == 0)
    made.supxlabel(
        caption
        or f"{shown.model}, decoder {decoder}; darker is nearer; ★ its best token is the next",
        fontsize=_SIZE + 0.5,
        parse_math=False,
    )
    return made


def _panel(
    made: Any, axes: Any, shown: prompt.Prompt, decoder: str, metric: metrics.Metric, named: bool
) -> None:
    from matplotlib import colors

    values = metric.values(shown.readings[decoder])
    strengths = metric.strength(values)
    ramp = palette.ramp(count=256)
    image = axes.imshow(
        np.ma.masked_invalid(strengths),
        cmap=colors.ListedColormap(ramp).with_extremes(bad="#eeeeee"),
        vmin=0,
        vmax=1,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    best = shown.readings[decoder]["top_id"][..., 0]
    for layer, at in np.ndindex(values.shape):
        word = shown.name(best[layer, at], 40) if named else _short(values[layer, at], metric.kind)
        strength = strengths[layer, at]
        ink = "#000000" if np.isnan(strength) else palette.ink(ramp[round(255 * float(strength))])
        axes.text(at, layer, _cut(word), color=ink, ha="center", va="center", **_TEXT)
    _ticks(axes, shown)
    axes.set_title(metric.title, loc="left", fontsize=_SIZE + 2, parse_math=False)
    ticks = metric.ticks()
    bar = made.colorbar(image, ax=axes, pad=0.01, fraction=0.03, ticks=[t for t, _ in ticks])
    bar.ax.set_yticklabels([label for _, label in ticks], fontsize=_SIZE)
    bar.outline.set_visible(False)


_TEXT = {"fontsize": _SIZE, "fontfamily": _FONT, "parse_math": False, "clip_on": True}


def _ticks(axes: Any, shown: prompt.Prompt) -> None:
    labels = {"fontsize": _SIZE, "fontfamily": _FONT, "parse_math": False}
    places = np.arange(len(shown))
    axes.set_xticks(places, [_cut(shown.name(i, 40)) for i in shown.ids], **labels)
    axes.set_yticks(np.arange(len(shown.layers)), shown.layers, **labels)
    above = axes.secondary_xaxis("top")
    following = [_cut(shown.name(i, 40)) if i >= 0 else "" for i in shown.following]
    stars = ["★" if right else "" for right in shown.right]
    above.set_xticks(places, [s + n for s, n in zip(stars, following, strict=True)], **labels)
    for side in (axes, above):
        side.tick_params(length=0)
        for spine in side.spines.values():
            spine.set_visible(False)


def _short(value: float, kind: str) -> str:
    if kind == metrics.NATS and value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if kind == metrics.NATS else metrics.spelled(float(value), kind)


def _cut(word: str) -> str:
    """What fits a cell, of characters that the font has."""
    known = _glyphs()
    drawn = "".join(c if ord(c) in known else visible.number(c) for c in word)
    return drawn if len(drawn) <= _NAME else drawn[: _NAME - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(_FONT)).get_charmap())
