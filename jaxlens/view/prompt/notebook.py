"""Readouts in notebooks: a fragment of HTML without scripts, whose styles are its own.

What tokens hold is escaped. Cells bring ground and ink; all else takes those of the page, so that
light and dark notebooks can be read alike.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxlens import errors
from jaxlens.view.comparison.comparison import Comparison
from jaxlens.view.figures import palette
from jaxlens.view.prompt import metrics, prompt, readouts

if TYPE_CHECKING:
    from jaxlens import types

MAX_LINES, MAX_TOKENS = 2, 24
"""Prompts, and tokens of each, that are shown; the others are counted."""

_NAME = 12
"""Characters of a token in a cell."""

# Notebooks have rules for tables, which only the style of the element itself outdoes.
OUTER = "overflow-x:auto;font-size:12px;line-height:1.35"
TABLE = "border-collapse:separate;border-spacing:1px;table-layout:auto;margin:4px 0 10px"
_ROW = "background:transparent"
_CELL = "padding:1px 5px;text-align:center;min-width:3em"
_HEAD = "padding:1px 5px;text-align:left;font-weight:600"
_FONT = "font-family:ui-monospace,monospace"


def fragment(readout: types.Readout) -> str | None:
    """The first prompts of a readout: layers by tokens, the last layer on top.

    Returns:
        HTML; None where the readout has no labels, or nothing that can be drawn.
    """
    try:
        references = readouts.known(readout)
    except errors.ConfigError:
        return None
    lines = np.flatnonzero(np.any(references.mask, axis=1)).tolist()
    shown = {line: readouts.prompt_of([readout], line) for line in lines[:MAX_LINES]}
    views = [metric for one in shown.values() for metric in one.views().values()]
    if not views:
        return None
    metric = views[0]
    named = "best token and " if readout.top_id is not None else ""
    parts = [
        f"<div>{_said(f'Readout: {readouts.described(readout)}')}</div>",
        f"<div>{named}{_said(metric.title)}: {_legend(metric)}</div>",
    ]
    for line, one in shown.items():
        parts += _prompt(one, f"line {line}" if len(references.mask) > 1 else "", metric)
    if len(lines) > len(shown):
        more = errors.count(len(lines) - len(shown), "more line")
        more += f": plot(line={lines[len(shown)]}), to_pandas()"
        parts.append(f"<div>{_said(more)}</div>")
    return f'<div style="{OUTER}">{"".join(parts)}</div>'


def difference(of: Comparison) -> str:
    """A comparison: the difference of its first metric, layers by tokens, the last layer on top."""
    try:
        shown = of.difference()
    except errors.ConfigError:
        return f"<div>{_said(repr(of))}</div>"
    part = of.part(0, MAX_TOKENS)
    one, two = of.names
    ticks = "".join(
        f'<span style="padding:0 6px{_diverging(strength)}">{_said(label)}</span>'
        for strength, label in shown.ticks()
    )
    parts = [
        f"<div>{_said('; '.join((f'A: {one}', f'B: {two}', *of.notes)))}</div>",
        f"<div>{_said(shown.title())}: {ticks}</div>",
    ]
    if len(of) > len(part):
        parts.append(f"<div>the first {len(part)} of {len(of):,} tokens; part(), html()</div>")
    parts.append(f'<table style="{TABLE};{_FONT}">')
    strengths = shown.strength(shown.values)
    for layer in reversed(range(len(of.pairs))):
        cells = [
            f'<td style="{_CELL}{_diverging(float(strengths[layer, at]))}">'
            f"{_said(shown.format_number(float(shown.values[layer, at])))}</td>"
            for at in range(len(part))
        ]
        parts.append(_row(of.layer_names[layer], cells))
    tokens = [" / ".join(dict.fromkeys(filter(None, part.token(at)))) for at in range(len(part))]
    parts += [_row("token", [_bold(word) for word in tokens]), "</table>"]
    return f'<div style="{OUTER}">{"".join(parts)}</div>'


def facts(title: str, pairs: Mapping[str, str]) -> str:
    """A small table of names and values."""
    rows = (
        f'<tr style="{_ROW}"><th style="{_HEAD}">{_said(name)}</th>'
        f'<td style="padding:1px 5px;text-align:left">{_said(value)}</td></tr>'
        for name, value in pairs.items()
    )
    table = f'<table style="{TABLE}">{"".join(rows)}</table>'
    return f'<div style="{OUTER}"><b>{_said(title)}</b>{table}</div>'


def table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of texts, whose first column names the lines."""
    cell = "padding:1px 8px;text-align:right"
    head = "".join(f'<th style="{cell}">{_said(word)}</th>' for word in heading)
    body = "".join(
        f'<tr style="{_ROW}"><th style="{_HEAD}">{_said(first)}</th>'
        + "".join(f'<td style="{cell}">{_said(word)}</td>' for word in rest)
        + "</tr>"
        for first, *rest in lines
    )
    return f'<div style="{OUTER}"><table style="{TABLE}"><tr>{head}</tr>{body}</table></div>'


def _prompt(shown: prompt.Prompt, title: str, metric: metrics.Metric) -> Iterator[str]:
    part = shown.part(0, MAX_TOKENS)
    words = [title] if title else []
    if len(shown) > len(part):
        words.append(f"the first {len(part)} of {len(shown):,} tokens")
    if words:
        yield f"<div>{_said('; '.join(words))}</div>"
    yield f'<table style="{TABLE};{_FONT}">'
    stars = ["★" if right else "" for right in part.right]
    following = [_name(part, i) if i >= 0 else "" for i in part.following]
    yield _row("next", [_bold(star + name) for star, name in zip(stars, following, strict=True)])
    cells = _cells(part, metric)
    for layer in reversed(range(len(part.layers))):
        yield _row(part.layers[layer], cells[layer])
    yield _row("token", [_bold(_name(part, i)) for i in part.ids])
    yield "</table>"


def _cells(part: prompt.Prompt, metric: metrics.Metric) -> list[list[str]]:
    """Cells by layer and position: best token, number, and all other numbers to point at."""
    (reading,) = part.readings.values()
    views = part.views()
    values = {name: view.values(reading) for name, view in views.items()}
    strengths = metric.strength(values[metric.name])

    def cell(layer: int, at: int) -> str:
        token_bytes = {
            n: metrics.format_number(float(values[n][layer, at]), views[n].kind) for n in views
        }
        details = "\n".join(f"{name} {number}" for name, number in token_bytes.items())
        words = [f"<small>{_said(token_bytes[metric.name])}</small>"]
        if "top_id" in reading:
            words.insert(0, _said(_name(part, reading["top_id"][layer, at, 0])))
        look = _look(float(strengths[layer, at]))
        return f'<td style="{_CELL}{look}" title="{_said(details)}">{"<br>".join(words)}</td>'

    return [[cell(layer, at) for at in range(len(part))] for layer in range(len(part.layers))]


def _name(part: prompt.Prompt, token: int) -> str:
    word = part.name(token)
    return word if len(word) <= _NAME else word[: _NAME - 1] + "…"


def _row(label: str, cells: list[str]) -> str:
    return f'<tr style="{_ROW}"><th style="{_HEAD}">{_said(label)}</th>{"".join(cells)}</tr>'


def _bold(word: str) -> str:
    return f'<td style="{_CELL};font-weight:600">{_said(word)}</td>'


def _legend(metric: metrics.Metric) -> str:
    return "".join(
        f'<span style="padding:0 6px{_look(strength)}">{_said(label)}</span>'
        for strength, label in metric.ticks()
    )


_RAMP = palette.ramp()


def _look(strength: float) -> str:
    """Ground and ink of a place on the ramp; those of the page where there is no number."""
    if np.isnan(strength):
        return ""
    ground = _RAMP[round(strength * (len(_RAMP) - 1))]
    return f";background:{ground};color:{palette.ink(ground)}"


_DIVERGING = palette.diverging()


def _diverging(strength: float) -> str:
    """Ground and ink of a difference; those of the page where there is none."""
    if np.isnan(strength):
        return ""
    ground = _DIVERGING[round((strength + 1) / 2 * (len(_DIVERGING) - 1))]
    return f";background:{ground};color:{palette.ink(ground)}"


def _said(words: str) -> str:
    return html.escape(words, quote=True)
