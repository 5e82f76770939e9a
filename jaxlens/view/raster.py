"""Rasters of a prompt for print: layers by tokens, the last layer on top.

The first view names the best token of each cell, as the figures of the 2020 post do; the others
and those of followed tokens write their numbers.
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
"""What a figure shows unless it is told otherwise, where it was read."""

MOST_TOKENS = 64
"""Tokens that a figure holds; more could not be read."""

_FONT, _SIZE, _NAME = "DejaVu Sans Mono", 6.5, 8
_CELL = 0.50, 0.19
"""Inches of a cell, and characters of a token that fit there."""


def draw(
    shown: prompt.Prompt,
    path: Path,
    decoder: str,
    views: Sequence[str] | None = None,
    caption: str = "",
) -> None:
    """Draws views of a prompt, one below the other, into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, too many tokens, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    pictures.require(path)
    pictures.save(figure(shown, decoder, views, caption), path)


def figure(
    shown: prompt.Prompt, decoder: str, views: Sequence[str] | None = None, caption: str = ""
) -> Any:
    """The figure, a ``matplotlib.figure.Figure``.

    Args:
        shown: Prompt of at most ``MOST_TOKENS``.
        decoder: Which reading.
        views: Names of metrics; by default ``VIEWS`` and the ranks of followed tokens.
        caption: Below; by default model, decoder and what the colours mean.

    Raises:
        ConfigError: Too many tokens, a view that is unknown or was not read, or matplotlib is not
            installed.
    """
    pictures.require_library()
    from jaxlens.view import canvas

    if len(shown) > MOST_TOKENS:
        raise errors.ConfigError(
            f"a figure of {len(shown):,} tokens",
            f"choose at most {MOST_TOKENS}: --tokens 0:{MOST_TOKENS}, or stop={MOST_TOKENS}",
        )
    chosen = [shown.view(name) for name in (_default(shown) if views is None else views)]
    width = 1.7 + _CELL[0] * max(len(shown), 6)
    height = 0.35 + len(chosen) * (0.95 + _CELL[1] * len(shown.layers))
    made = canvas.Figure(figsize=(width, height), layout="constrained")
    grid = np.atleast_1d(made.subplots(len(chosen), 1))
    for place, (axes, metric) in enumerate(zip(grid, chosen, strict=True)):
        named = place == 0 and metric.quantity not in prompt.FOLLOWED
        _panel(made, axes, shown, decoder, metric, named)
    words = caption or _caption(shown, decoder)
    made.supxlabel(words, fontsize=_SIZE + 0.5, parse_math=False)
    return made


def _default(shown: prompt.Prompt) -> list[str]:
    known = shown.views()
    found = [name for name in VIEWS if name in known]
    found += [name for name in known if name.startswith("rank_follow")]
    found = found or list(known)
    if not found:
        raise errors.ConfigError(
            "nothing that was read can be drawn", f"read one of {', '.join(prompt.QUANTITIES)}"
        )
    return found


def _caption(shown: prompt.Prompt, decoder: str) -> str:
    parts = [", ".join(filter(None, [shown.model, f"decoder {decoder}"])), "darker is nearer"]
    if shown.judged:
        whose = "its" if shown.model else "the model's"
        parts.append(f"★ {whose} best token is the next")
    return "; ".join(parts)


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
    best = shown.readings[decoder].get("top_id") if named else None
    for layer, at in np.ndindex(values.shape):
        if best is None:
            word = _short(values[layer, at], metric.kind)
        else:
            word = shown.name(best[layer, at, 0], 40)
        strength = strengths[layer, at]
        ink = "#000000" if np.isnan(strength) else palette.ink(ramp[round(255 * float(strength))])
        axes.text(at, layer, _cut(word), color=ink, ha="center", va="center", **_TEXT)
    _ticks(axes, shown)
    title = metric.title
    if best is not None and metric.name != "p_top":
        title = f"best token, coloured by: {title}"
    axes.set_title(title, loc="left", fontsize=_SIZE + 2, parse_math=False)
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
    if kind != metrics.NATS or np.isnan(value):
        return metrics.spelled(float(value), kind)
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _cut(word: str) -> str:
    """What fits a cell, of characters that the font has."""
    known = _glyphs()
    drawn = "".join(c if ord(c) in known else visible.number(c) for c in word)
    return drawn if len(drawn) <= _NAME else drawn[: _NAME - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(_FONT)).get_charmap())


# Figures of comparisons write their cells alike.
cut, short = _cut, _short
