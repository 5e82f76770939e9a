"""A prompt in the terminal: layers from the last one down, tokens from left to right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TextIO

import numpy as np
from rich import cells, console, style, text

from jaxlens.view.figures import palette
from jaxlens.view.prompt import metrics, prompt

LABEL, CELL = 6, 10
"""Columns of a layer's name, and of a cell."""

_STAR = "★"


def show(
    shown: prompt.Prompt,
    metric: metrics.Metric,
    decoder: str,
    stream: TextIO,
    width: int | None = None,
) -> None:
    """Prints the grid, as many blocks below each other as its tokens need.

    Colours are for terminals; a pipe or a file gets the same table without them.

    Args:
        shown: Prompt.
        metric: What the colours say, and the number in each cell.
        decoder: Which reading.
        stream: Where to.
        width: Columns; those of the terminal by default, 100 where there is none.
    """
    out = _Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    columns = width or (out.width if out.is_terminal else 100)
    for line in lines(shown, metric, decoder, columns):
        out.print(line, end="\n", crop=False, no_wrap=True)


class _Console(console.Console):
    """One whose user decides what a reader that is gone means; rich ends the program with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def lines(
    shown: prompt.Prompt, metric: metrics.Metric, decoder: str, columns: int
) -> Iterator[text.Text]:
    """The lines of the picture."""
    values = metric.values(shown.readings[decoder])
    yield text.Text(f"{shown.model}, {decoder}: best token at each layer, {metric.title}")
    yield _legend(metric)
    count = max(1, (columns - LABEL) // (CELL + 1))
    for start in range(0, len(shown), count):
        yield text.Text("")
        yield from _block(shown, metric, decoder, values, range(len(shown))[start : start + count])
    if shown.follow:
        yield from _followed(shown, decoder, columns)


def _followed(shown: prompt.Prompt, decoder: str, columns: int) -> Iterator[text.Text]:
    """Ranks of the followed tokens after the last one that is shown, a layer a line."""
    last = shown.name(shown.ids[-1], CELL)
    yield text.Text("")
    yield text.Text(f"rank and probability of the followed tokens after {last}")
    fits = max(1, (columns - LABEL) // (2 * CELL + 2))
    for start in range(0, len(shown.follow), fits):
        places = range(start, min(start + fits, len(shown.follow)))
        line = text.Text(" " * LABEL, style.Style(bold=True))
        for index in places:
            line.append(fit(shown.name(shown.follow[index], 2 * CELL), 2 * CELL + 1)).append(" ")
        yield line
        for layer in reversed(range(len(shown.layers))):
            line = text.Text(fit(shown.layers[layer], LABEL))
            for index in places:
                rank = float(shown.readings[decoder]["rank_follow"][layer, -1, index])
                share = math.exp(shown.readings[decoder]["logp_follow"][layer, -1, index])
                line.append(fit(metrics.format_number(rank, metrics.RANK), CELL)).append(" ")
                line.append(fit(metrics.format_number(share, metrics.SHARE), CELL)).append(" ")
            yield line


def _block(
    shown: prompt.Prompt,
    metric: metrics.Metric,
    decoder: str,
    values: np.ndarray,
    positions: range,
) -> Iterator[text.Text]:
    best = shown.readings[decoder]["top_id"][..., 0]
    strengths = metric.strength(values)
    marks = [_STAR if shown.right[i] else " " for i in positions]
    following = [shown.name(i, CELL) if i >= 0 else "" for i in shown.following[list(positions)]]
    yield row("next", [m + name for m, name in zip(marks, following, strict=True)])
    for layer in reversed(range(len(shown.layers))):
        names, numbers = text.Text(fit(shown.layers[layer], LABEL)), text.Text(" " * LABEL)
        for i in positions:
            number = metrics.format_number(float(values[layer, i]), metric.kind)
            look = _look(float(strengths[layer, i]))
            names.append(fit(shown.name(best[layer, i], CELL), CELL), look).append(" ")
            numbers.append(fit(number, CELL, right=True), look).append(" ")
        yield names
        yield numbers
    yield row("token", [" " + shown.name(shown.ids[i], CELL) for i in positions])


def row(label: str, words: list[str], size: int = LABEL) -> text.Text:
    """A line of words under a label, one to a cell."""
    line = text.Text(fit(label, size), style.Style(bold=True))
    for word in words:
        line.append(fit(word, CELL)).append(" ")
    return line


def _legend(metric: metrics.Metric) -> text.Text:
    line = text.Text("colour: ")
    for strength, label in metric.ticks():
        line.append(f" {label} ", _look(strength))
    return line.append(f"   {_STAR} the model is right in the end")


_RAMP = palette.ramp()


def _look(strength: float) -> style.Style:
    """Ground and ink; both are set, so that any theme of the terminal can read them."""
    if np.isnan(strength):
        return style.Style(dim=True)
    ground = _RAMP[round(strength * (len(_RAMP) - 1))]
    return style.Style(color=palette.ink(ground), bgcolor=ground)


def fit(word: str, size: int, right: bool = False) -> str:
    """A word in a fixed number of columns; wide characters take two."""
    if cells.cell_len(word) > size:
        word = cells.set_cell_size(word, size - 1) + "…"
    space = " " * (size - cells.cell_len(word))
    return space + word if right else word + space
