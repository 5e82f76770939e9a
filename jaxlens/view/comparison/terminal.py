"""A comparison in the terminal: both best tokens of each cell, and the difference below them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

import numpy as np
from rich import console, style, text

from jaxlens.view.comparison import difference
from jaxlens.view.comparison.comparison import Comparison
from jaxlens.view.figures import palette
from jaxlens.view.prompt import terminal

_RAMP = palette.diverging()


def show(shown: Comparison, metric: str | None, stream: TextIO, width: int | None = None) -> None:
    """Prints the grid, as many blocks below each other as its tokens need.

    Colours are for terminals; a pipe or a file gets the same table without them.

    Args:
        shown: Comparison.
        metric: What the numbers are differences of; the first that both sides have by default.
        stream: Where to.
        width: Columns; those of the terminal by default, 100 where there is none.
    """
    out = console.Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    columns = width or (out.width if out.is_terminal else 100)
    for line in lines(shown, metric, columns):
        out.print(line, end="\n", crop=False, no_wrap=True)


def lines(shown: Comparison, metric: str | None, columns: int) -> Iterator[text.Text]:
    """The lines of the picture."""
    shown_difference = shown.difference(metric)
    one, two = shown.names
    yield text.Text(f"A: {one}")
    yield text.Text(f"B: {two}")
    yield text.Text(f"each cell: best token of A, best token of B, {shown_difference.title()}")
    yield text.Text(f"{'; '.join(shown.notes)}")
    yield _legend(shown_difference)
    label = max(terminal.LABEL, max(map(len, shown.layer_names)) + 1)
    count = max(1, (columns - label) // (terminal.CELL + 1))
    for start in range(0, len(shown), count):
        yield text.Text("")
        yield from _block(shown, shown_difference, range(len(shown))[start : start + count], label)


def _block(
    shown: Comparison, shown_difference: difference.Difference, places: range, label: int
) -> Iterator[text.Text]:
    best = [_best(shown, side) for side in (0, 1)]
    strengths = shown_difference.strength(shown_difference.values)
    for layer in reversed(range(len(shown.pairs))):
        rows = [text.Text(terminal.fit(shown.layer_names[layer], label))]
        rows += [text.Text(" " * label) for _ in range(2)]
        for at in places:
            for row, names in zip(rows, best, strict=False):
                row.append(terminal.fit(names[layer][at], terminal.CELL)).append(" ")
            number = shown_difference.format_number(float(shown_difference.values[layer, at]))
            look = _look(float(strengths[layer, at]))
            rows[-1].append(terminal.fit(number, terminal.CELL, right=True), look).append(" ")
        yield from rows
    tokens = [shown.token(at) for at in places]
    yield terminal.row("token", [one for one, _ in tokens], label)
    if any(one != two for one, two in tokens):
        yield terminal.row("", ["=" if one == two else two for one, two in tokens], label)


def _best(shown: Comparison, side: int) -> list[list[str]]:
    """Best token of each cell of a side; empty where it has no token or none was read."""
    whose, reading = shown.sides[side], shown.readings[side]
    if "top_id" not in reading:
        return [[""] * len(shown) for _ in shown.pairs]
    return [
        [
            whose.name(reading["top_id"][pair[side], at, 0], terminal.CELL) if at >= 0 else ""
            for at in shown.columns[:, side].tolist()
        ]
        for pair in shown.pairs
    ]


def _legend(shown_difference: difference.Difference) -> text.Text:
    line = text.Text("colour: ")
    for strength, label in shown_difference.ticks():
        line.append(f" {label} ", _look(strength))
    return line.append("   blue: greater in A, orange: greater in B")


def _look(strength: float) -> style.Style:
    """Ground and ink; both are set, so that any theme of the terminal can read them."""
    if np.isnan(strength):
        return style.Style(dim=True)
    ground = _RAMP[round((strength + 1) / 2 * (len(_RAMP) - 1))]
    return style.Style(color=palette.ink(ground), bgcolor=ground)
