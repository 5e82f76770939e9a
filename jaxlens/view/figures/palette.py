"""Colours of the pictures: one ramp that keeps its order in grey and for colour-blind eyes.

The ramp goes evenly in lightness from a pale green to a deep blue; it is made in OKLab, where equal
steps look equal.

Reference: Ottosson 2020, https://bottosson.github.io/posts/oklab (the colour space).
"""

from __future__ import annotations

import math

LIGHT, DARK = (0.975, 0.30), (0.24, 0.93)
"""Lightness of the ends, weak to strong, on a light and on a dark ground."""

_HUES = (155.0, 275.0)  # degrees, from the pale end to the deep one
_CHROMA = 0.115

DIVERGING_LIGHT, DIVERGING_DARK = (0.975, 0.47), (0.26, 0.80)
"""Lightness of no difference and of the greatest, on a light and on a dark ground."""

_BLUE, _ORANGE = 255.0, 60.0
"""Hues of a greater and of a lesser value: the pair that all common kinds of colour blindness keep
apart."""

_DIVERGING_CHROMA = 0.14

# Okabe and Ito's colours, which colour-blind readers can tell apart, for lines; black is the eighth
# of theirs, and the wine of Tol's stands for their yellow, which is too pale on white.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")
LINES += ("#000000", "#882255")

_ON_DARK = {"ink": "#e8e8ec", "faint": "#a4a7b0", "missing": "#34363f"}
_ON_LIGHT = {"ink": "#000000", "faint": "#555555", "missing": "#eeeeee"}


def on(ends: tuple[float, float], what: str) -> str:
    """A colour beside a ramp: ``ink`` of letters, ``faint`` ones, or a ``missing`` value.

    Args:
        ends: Of the ramp, `LIGHT` or `DARK`.
        what: Which.
    """
    return (_ON_DARK if ends == DARK else _ON_LIGHT)[what]


def look(ends: tuple[float, float]) -> dict[str, str]:
    """Settings of matplotlib for a figure around a ramp; those for a light ground are the usual."""
    if ends != DARK:
        return {}
    faint = on(ends, "faint")
    named = {"text.color": on(ends, "ink"), "axes.labelcolor": on(ends, "ink")}
    return named | {"xtick.color": faint, "ytick.color": faint, "axes.edgecolor": faint}


def ramp(ends: tuple[float, float] = LIGHT, count: int = 33) -> list[str]:
    """Colours from weak to strong, as ``#rrggbb``.

    Args:
        ends: Lightness of the first and the last.
        count: How many.
    """
    return [_hex(*_lab(step / (count - 1), ends)) for step in range(count)]


def diverging(ends: tuple[float, float] = DIVERGING_LIGHT, count: int = 33) -> list[str]:
    """Colours of differences, from -1 (orange) over 0 (the ground) to 1 (blue), as ``#rrggbb``.

    Lightness depends on the size of a difference alone, so that it reads in grey as well.

    Args:
        ends: Lightness of 0, and of -1 and 1.
        count: How many; odd, so that 0 has a colour of its own.
    """
    places = (2 * step / (count - 1) - 1 for step in range(count))
    return [_hex(*_diverging_lab(step, ends)) for step in places]


def _diverging_lab(strength: float, ends: tuple[float, float]) -> tuple[float, float, float]:
    size = abs(strength)
    hue = math.radians(_BLUE if strength > 0 else _ORANGE)
    chroma = _DIVERGING_CHROMA * size
    return ends[0] + size * (ends[1] - ends[0]), chroma * math.cos(hue), chroma * math.sin(hue)


def ink(colour: str) -> str:
    """Black or white, whichever can be read on a colour; by the contrast of WCAG 2."""
    bright = luminance(colour)
    return "#000000" if (bright + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 to 1, by WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _lab(share: float, ends: tuple[float, float]) -> tuple[float, float, float]:
    lightness = ends[0] + share * (ends[1] - ends[0])
    deep = (LIGHT[0] - lightness) / (LIGHT[0] - LIGHT[1])
    hue = math.radians(_HUES[0] + deep * (_HUES[1] - _HUES[0]))
    # Neither white nor black has colour; the middle has most.
    chroma = _CHROMA * math.sin(math.pi * min(max(lightness, 0.0), 1.0))
    return lightness, chroma * math.cos(hue), chroma * math.sin(hue)


def _hex(lightness: float, a: float, b: float) -> str:
    cone = (
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    )
    long, middle, short = (value**3 for value in cone)
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _companded(value)):02x}" for value in linear)


def _companded(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
