"""The page of a comparison: the difference on top, both sides beside each other below it.

Every number is formatted and every colour chosen here, by the rules of the other pictures; the
script puts them into tables as text and as classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlens import errors
from jaxlens.view import pages, printable
from jaxlens.view.comparison.comparison import Comparison
from jaxlens.view.figures import palette
from jaxlens.view.prompt import html, metrics

MAX_COLUMNS = 128
"""Tokens of a page; three tables of more would not be read."""

COLOURS = 33
"""Steps of the diverging scale; odd, so that 0 has one of its own."""


def page(shown: Comparison, metric: str | None = None) -> str:
    """The page; see ``Comparison.html``."""
    first = shown.view(metric).name
    if len(shown) > MAX_COLUMNS:
        raise errors.ConfigError(
            f"a page that compares {len(shown):,} tokens",
            f"choose at most {MAX_COLUMNS}: --tokens 0:{MAX_COLUMNS}, or part()",
        )
    one, two = shown.names
    ends = palette.DIVERGING_LIGHT, palette.DIVERGING_DARK
    styles = [pages.asset("prompt.css"), pages.asset("compare.css"), html.shades()]
    return pages.page(
        "compare.html",
        title=f"{one} compared with {two} · logit lens"[:120],
        what=shown.what,
        one=one,
        two=two,
        notes="; ".join([*_common(shown), *shown.notes]),
        styles=[*styles, pages.shades("d", *(palette.diverging(end, COLOURS) for end in ends))],
        scripts=[pages.asset("compare.js")],
        data=_document(shown, first),
    )


def _common(shown: Comparison) -> list[str]:
    """Model and decoder, where both sides have the same."""
    models, decoders = {side.model for side in shown.sides}, set(shown.decoders)
    parts = [f"model {model}" for model in models if model and len(models) == 1]
    return parts + [f"decoder {decoder}" for decoder in decoders if len(decoders) == 1]


def _document(shown: Comparison, first: str) -> dict[str, Any]:
    names: dict[str, int] = {}

    def number(name: str) -> int:
        return names.setdefault(name, len(names))

    sides = [_side(shown, side, number) for side in (0, 1)]
    document = {
        "layers": list(shown.layer_names),
        "equal": shown.equal.astype(int).tolist(),
        "sides": sides,
        "metrics": [_metric(shown, metric) for metric in shown.views().values()],
        "first": list(shown.views()).index(first),
    }
    return document | {"words": list(names)}


def _side(shown: Comparison, side: int, number: Callable[[str], int]) -> dict[str, Any]:
    """Tokens, next tokens, stars and best tokens of one side, by column; words as numbers."""
    whose, reading = shown.sides[side], shown.readings[side]
    places = shown.columns[:, side].tolist()
    top = reading.get("top_id")
    logs = reading.get("top_logp")

    def best(layer: int, at: int) -> list[list[Any]]:
        if at < 0 or top is None:
            return []
        shares = [""] * top.shape[2]
        if logs is not None:
            shares = [
                metrics.format_number(float(np.exp(p)), metrics.SHARE) for p in logs[layer, at]
            ]
        named = [number(whose.name(i)) for i in top[layer, at]]
        return [list(pair) for pair in zip(named, shares, strict=False)]

    return {
        "text": printable.line(whose.text),
        "layers": [whose.layers[pair[side]] for pair in shown.pairs],
        "at": places,
        "tokens": [number(shown.token(column)[side]) for column in range(len(shown))],
        "next": [number(shown.following(column)[side]) for column in range(len(shown))],
        "right": [int(at >= 0 and whose.right[at]) for at in places],
        "best": [[best(pair[side], at) for at in places] for pair in shown.pairs],
    }


def _metric(shown: Comparison, metric: metrics.Metric) -> dict[str, Any]:
    shown_difference = shown.difference(metric.name)
    sides = []
    for side in (0, 1):
        mine, values = shown.sides[side].view(metric.name), shown.values(metric.name, side)
        sides.append(
            {
                "words": _formatted(
                    values, lambda value: metrics.format_number(value, metric.kind)
                ),
                "steps": _steps(mine.strength(values), html.COLOURS, 0.0),
                "ticks": _ticks(mine.ticks(), html.COLOURS, 0.0),
            }
        )
    return {
        "name": metric.name,
        "title": metric.title,
        "says": shown_difference.title(),
        "ticks": _ticks(shown_difference.ticks(), COLOURS, -1.0),
        "words": _formatted(shown_difference.values, shown_difference.format_number),
        "steps": _steps(shown_difference.strength(shown_difference.values), COLOURS, -1.0),
        "sides": sides,
    }


def _formatted(values: Float[np.ndarray, "layer column"], how: Callable[[float], str]) -> Any:
    return [[how(float(value)) for value in row] for row in values]


def _steps(strengths: Float[np.ndarray, "..."], count: int, low: float) -> Any:
    """Steps of a ramp from ``low`` to 1; -1 where there is no number."""
    steps = np.rint((strengths - low) / (1 - low) * (count - 1))
    return np.where(np.isnan(steps), -1, steps).astype(int).tolist()


def _ticks(ticks: list[tuple[float, str]], count: int, low: float) -> list[list[Any]]:
    return [[int(_steps(np.array(position), count, low)), label] for position, label in ticks]
