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
from jaxlens.view import printable
from jaxlens.view.figures import files, palette
from jaxlens.view.prompt import metrics, prompt

VIEWS = ("p_top", "rank_final", "kl_final", "rank_input", "kl_input")
"""What a figure shows unless it is told otherwise, where it was read."""

WRAP = 32
"""Tokens side by side; more could not be read."""

MAX_CELLS = 2048
"""Columns of all panels together."""

_FONT, _SIZE, _NAME = "DejaVu Sans Mono", 6.5, 8
_CELL = 0.50, 0.19
"""Inches of a cell."""

_AROUND = 1.2
"""Inches above and below the cells of a panel."""

INPUT, NEXT = "token that was read", "true next token"
"""What the lower and the upper edge say."""


def draw(
    shown: prompt.Prompt | Sequence[prompt.Prompt],
    path: Path,
    decoder: str,
    views: Sequence[str] | None = None,
    caption: str = "",
) -> None:
    """Draws views of prompts, one below the other, into a file whose suffix says the format.

    Raises:
        ConfigError: An unknown suffix, too many tokens, or matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    files.require(path)
    files.save(figure(shown, decoder, views, caption), path)


def svg(shown: prompt.Prompt, decoder: str, ends: tuple[float, float]) -> str:
    """The default views of a prompt as text of SVG, without a caption; see `figure`."""
    import matplotlib

    with matplotlib.rc_context(palette.look(ends)):
        return files.svg(figure(shown, decoder, caption=" ", ends=ends))


def figure(
    shown: prompt.Prompt | Sequence[prompt.Prompt],
    decoder: str,
    views: Sequence[str] | None = None,
    caption: str = "",
    *,
    title: str = "",
    names: Sequence[str] = (),
    figsize: tuple[float, float] | None = None,
    wrap: int = WRAP,
    ends: tuple[float, float] = palette.LIGHT,
) -> Any:
    """The figure, a ``matplotlib.figure.Figure``.

    Args:
        shown: One prompt or several, one below the other; all panels at most ``MAX_CELLS`` wide.
        decoder: Which reading.
        views: Names of metrics; by default ``VIEWS`` and the ranks of followed tokens, and of
            several prompts the first of these.
        caption: Below; by default model, decoder and what the colours mean.
        title: Above; nothing by default.
        names: What several prompts are called.
        figsize: Width and height in inches; by default what the cells need.
        wrap: Most tokens side by side; longer prompts go on below.
        ends: Of the ramp: ``palette.LIGHT``, or ``palette.DARK`` for a dark ground.

    Raises:
        ConfigError: Too many tokens, a view that is unknown or was not read, or matplotlib is not
            installed.
    """
    files.require_library()
    from jaxlens.view.figures import canvas

    several = [shown] if isinstance(shown, prompt.Prompt) else list(shown)
    panels = _panels(several, views, wrap, names)
    width = max(len(part) for part, *_ in panels)
    heights = [_AROUND + _CELL[1] * len(part.layers) for part, *_ in panels]
    size = (1.7 + _CELL[0] * max(width, 6), 0.35 + 0.3 * bool(title) + sum(heights))
    drawn = canvas.Figure(figsize=figsize or size, layout="constrained")
    grid = drawn.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (part, metric, named, heading) in zip(grid, panels, strict=True):
        panel(axes, part, decoder, metric, named=named, title=heading, width=width, ends=ends)
    words = caption or _caption(several[0], decoder)
    drawn.supxlabel(words, fontsize=_SIZE + 0.5, parse_math=False)
    if title:
        drawn.suptitle(title, fontsize=_SIZE + 4, parse_math=False)
    return drawn


def default(shown: prompt.Prompt) -> metrics.Metric:
    """What a single panel shows unless it is told otherwise.

    Raises:
        ConfigError: Nothing that was read can be drawn.
    """
    return shown.view(_default(shown)[0])


_Panel = tuple[prompt.Prompt, metrics.Metric, bool, str]
"""Some tokens of a prompt, what of them, whether best tokens are named, and its title."""


def _panels(
    several: Sequence[prompt.Prompt],
    views: Sequence[str] | None,
    wrap: int,
    called: Sequence[str],
) -> list[_Panel]:
    """The panels of a figure from top to bottom."""
    if wrap < 1:
        raise errors.ConfigError(f"rows of {wrap} tokens", "give a wrap of at least 1")
    panels: list[_Panel] = []
    for number, shown in enumerate(several):
        names = _default(shown) if views is None else views
        alone = views is not None or len(several) == 1
        for index, name in enumerate(names if alone else names[:1]):
            metric = shown.view(name)
            named = index == 0 and metric.quantity not in prompt.FOLLOWED
            first = title(shown, metric, named)
            first = f"{called[number]}: {first}" if number < len(called) else first
            panels += [
                (part, metric, named, first + _which(part) * (len(part) < len(shown)))
                for part in _rows(shown, wrap)
            ]
    drawn = sum(len(part) for part, *_ in panels)
    if drawn > MAX_CELLS:
        raise errors.ConfigError(
            f"a figure of {sum(map(len, several)):,} tokens in {len(panels)} panels",
            "choose fewer: --tokens 0:64, or start=, stop= and one metric",
        )
    return panels


def _which(part: prompt.Prompt) -> str:
    return f"; tokens {part.start} to {part.start + len(part) - 1}"


def _rows(shown: prompt.Prompt, wrap: int) -> list[prompt.Prompt]:
    """A prompt in rows of about the same length."""
    count = -(-len(shown) // wrap)
    size = -(-len(shown) // count)
    return [shown.part(start, start + size) for start in range(0, len(shown), size)]


def title(shown: prompt.Prompt, metric: metrics.Metric, named: bool) -> str:
    """What a panel shows."""
    read = any("top_id" in reading for reading in shown.readings.values())
    if named and read and metric.name != "p_top":
        return f"best token, coloured by: {metric.title}"
    return metric.title


def _default(shown: prompt.Prompt) -> list[str]:
    known = shown.views()
    names = [name for name in VIEWS if name in known]
    names += [name for name in known if name.startswith("rank_follow")]
    names = names or list(known)
    if not names:
        raise errors.ConfigError(
            "nothing that was read can be drawn", f"read one of {', '.join(prompt.QUANTITIES)}"
        )
    return names


def _caption(shown: prompt.Prompt, decoder: str) -> str:
    parts = [", ".join(filter(None, [shown.model, f"decoder {decoder}"])), "darker is nearer"]
    if shown.judged:
        whose = "its" if shown.model else "the model's"
        parts.append(f"★ {whose} best token is the next")
    return "; ".join(parts)


def panel(
    axes: Any,
    shown: prompt.Prompt,
    decoder: str,
    metric: metrics.Metric,
    *,
    named: bool = True,
    title: str = "",
    width: int = 0,
    ends: tuple[float, float] = palette.LIGHT,
) -> None:
    """Draws a prompt into axes of matplotlib.

    Args:
        axes: Where to.
        shown: Prompt.
        decoder: Which reading.
        metric: What cells say.
        named: Whether cells name the best token instead of the number.
        title: Above.
        width: Columns that there is room for; as many as there are tokens by default.
        ends: See `figure`.
    """
    from matplotlib import colors

    values = metric.values(shown.readings[decoder])
    strengths = metric.strength(values)
    ramp = palette.ramp(ends, 256)
    image = axes.imshow(
        np.ma.masked_invalid(strengths),
        cmap=colors.ListedColormap(ramp).with_extremes(bad=palette.on(ends, "missing")),
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
        ground = None if np.isnan(strength) else ramp[round(255 * float(strength))]
        ink = palette.on(ends, "ink") if ground is None else palette.ink(ground)
        axes.text(at, layer, _cut(word), color=ink, ha="center", va="center", **_TEXT)
    axes.set_xlim(-0.5, max(width, len(shown)) - 0.5)
    _ticks(axes, shown, palette.on(ends, "faint"))
    axes.set_title(title, loc="left", fontsize=_SIZE + 2, parse_math=False)
    ticks = metric.ticks()
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, ticks=[t for t, _ in ticks])
    bar.ax.set_yticklabels([label for _, label in ticks], fontsize=_SIZE)
    bar.outline.set_visible(False)


_TEXT = {"fontsize": _SIZE, "fontfamily": _FONT, "parse_math": False, "clip_on": True}


def _ticks(axes: Any, shown: prompt.Prompt, faint: str) -> None:
    labels = {"fontsize": _SIZE, "fontfamily": _FONT, "parse_math": False}
    places = np.arange(len(shown))
    axes.set_xticks(places, [_cut(shown.name(i, 40)) for i in shown.ids], **labels)
    axes.set_yticks(np.arange(len(shown.layers)), shown.layers, **labels)
    above = axes.secondary_xaxis("top")
    following = [_cut(shown.name(i, 40)) if i >= 0 else "" for i in shown.following]
    stars = ["★" if right else "" for right in shown.right]
    above.set_xticks(places, [s + n for s, n in zip(stars, following, strict=True)], **labels)
    edge = {"fontsize": _SIZE, "color": faint, "loc": "left"}
    axes.set_xlabel(INPUT, **edge)
    above.set_xlabel(NEXT, **edge)
    for side in (axes, above):
        side.tick_params(length=0)
        for spine in side.spines.values():
            spine.set_visible(False)


def _short(value: float, kind: str) -> str:
    if kind != metrics.NATS or np.isnan(value):
        return metrics.format_number(float(value), kind)
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _cut(word: str) -> str:
    """What fits a cell, of characters that the font has."""
    known = _glyphs()
    drawn = "".join(c if ord(c) in known else printable.number(c) for c in word)
    return drawn if len(drawn) <= _NAME else drawn[: _NAME - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(_FONT)).get_charmap())


# Figures of comparisons write their cells alike.
cut, short = _cut, _short
