"""A table of prompts as plain columns, as data frames, and in notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import errors
from jaxlens.view import printable
from jaxlens.view.prompt import metrics, notebook

if TYPE_CHECKING:
    from jaxlens.api.prompts.table import PromptTable

MAX_PROMPTS = 10
"""Prompts that a notebook shows."""

_TEXT = 48
"""Characters of a prompt that a notebook shows, its end."""

Columns = dict[str, tuple[np.ndarray, np.ndarray | None]]
"""Values by name, and where they are missing; floats are NaN there."""


def columns(table: PromptTable, texts: bool = True, raw: bool = False) -> Columns:
    r"""One entry for each prompt, position and layer; see ``PromptTable.to_pandas``.

    Args:
        table: The table.
        texts: Whether prompts are repeated as text.
        raw: Whether tokens are their bytes, for whoever spells these; if not, they are text, with
            bytes that are no UTF-8 as ``\xe2``.
    """
    depth, rows = len(table.layers), len(table)
    token_bytes = _bytes(table) if raw else _token_words(table)
    prompt = np.repeat(table.prompt, depth)
    data: Columns = {"prompt": (prompt, None)}
    if texts:
        data["text"] = (np.array(table.texts, object)[prompt], None)
    own = _numbers(table, token_bytes, depth, rows)
    for name, values in table.metadata.items():
        # A column of the file never hides one of ours, nor another one of its own.
        key = name
        while key in own or key in data or (key != name and key in table.metadata):
            key += "_given"
        data[key] = (_objects(values)[prompt], None)
    return data | own


def _numbers(
    table: PromptTable, token_bytes: Mapping[int, str | bytes], depth: int, rows: int
) -> Columns:
    numbers: Columns = {
        "position": (np.repeat(table.position, depth), None),
        "token_id": (np.repeat(table.token, depth), None),
        "token": (_texts(np.repeat(table.token, depth), token_bytes), None),
        "layer": (np.tile(np.array(table.layers, np.int64), rows), None),
        "layer_name": (np.tile(np.array(table.layer_names, object), rows), None),
    }
    several = table.top_id.shape[2] > 1
    for index in range(table.top_id.shape[2]):
        number = f".{index + 1}" if several else ""
        numbers[f"top_token{number}"] = (
            _texts(table.top_id[..., index].ravel(), token_bytes),
            None,
        )
        numbers[f"top_p{number}"] = (np.exp(table.top_logp[..., index]).ravel(), None)
    numbers["entropy"] = (table.entropy.ravel(), None)
    numbers["kl_final"] = (table.kl_final.ravel(), None)
    first_top = table.first_top
    for index, name in enumerate(table.answers.names):
        rank = table.rank[..., index].ravel()
        logp = table.logp[..., index].ravel()
        first = np.repeat(first_top[:, index], depth)
        token = np.repeat(table.answers.token[table.prompt, index], depth)
        numbers[f"text_{name}"] = (np.repeat(table.answers.text[table.prompt, index], depth), None)
        numbers[f"token_{name}"] = (_texts(token, token_bytes), None)
        numbers[f"rank_{name}"] = (rank, rank == 0)
        numbers[f"p_{name}"] = (np.exp(logp), None)
        numbers[f"logp_{name}"] = (logp, None)
        numbers[f"first_top_{name}"] = (first, first < 0)
    if (difference := table.logit_difference) is not None:
        numbers["logit_difference"] = (difference.ravel(), None)
    return numbers


def answer_columns(table: PromptTable) -> Columns:
    """One entry for each prompt and answer; see ``PromptTable.answers_to_pandas``."""
    answers = table.answers
    count = len(answers.names)
    token = answers.token.ravel()
    return {
        "prompt": (np.repeat(np.arange(table.n_prompts), count), None),
        "answer": (np.tile(np.array(answers.names, object), table.n_prompts), None),
        "text": (answers.text.ravel(), None),
        "token_id": (token, token < 0),
        "token": (_texts(token, _token_words(table)), None),
        "n_tokens": (answers.n_tokens.ravel(), None),
        "space_added": (answers.space_added.ravel(), None),
        "collides": (answers.collides.ravel(), None),
    }


def document(table: PromptTable, summary: Mapping[str, np.ndarray], basis: str) -> dict[str, Any]:
    """What is to be known about the columns, as plain values."""
    taken = {
        name: [None if absent is not None and absent[i] else value for i, value in enumerate(some)]
        for name, (values, absent) in answer_columns(table).items()
        for some in (values.tolist(),)
    }
    lines = zip(*(summary[name].tolist() for name in summary), strict=True)
    answers = zip(*taken.values(), strict=True)
    return {
        "decoder": table.decoder,
        "prompts": table.n_prompts,
        "problems": [{"prompt": one.prompt, "what": one.what} for one in table.problems],
        "trailing_space": list(table.trailing_space),
        "difference": table.difference,
        "answers": [dict(zip(taken, row, strict=True)) for row in answers],
        "basis": basis,
        "summary": [
            {name: None if one != one else one for name, one in zip(summary, line, strict=True)}
            for line in lines
        ],
    }


def frame(series: Columns) -> Any:
    """Columns as a ``pandas.DataFrame``.

    Raises:
        MissingError: pandas is not installed.
    """
    pandas = errors.require_package("pandas", "view", "data frames")

    def column(values: np.ndarray, absent: np.ndarray | None) -> Any:
        if absent is not None:
            return pandas.arrays.IntegerArray(values.astype(np.int32), np.array(absent))
        if values.dtype == object and all(one is None or _is_text(one) for one in values):
            return pandas.array(values.tolist(), dtype=pandas.StringDtype())
        if values.dtype != object:
            return values
        series = pandas.Series(values, dtype=object)
        # pandas would take it for strings, which hold what UTF-8 can.
        return (
            series if any(isinstance(one, str) for one in values) else series.infer_objects().array
        )

    return pandas.DataFrame({name: column(*pair) for name, pair in series.items()})


def _is_text(value: Any) -> bool:
    """Whether it is text that UTF-8 can hold, as pandas wants it of its strings."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def described(table: PromptTable) -> str:
    """Sizes in a few words."""
    rows, layers = (
        errors.count(len(table), "row"),
        errors.count(len(table.layers), "layer"),
    )
    names = ", ".join(table.answers.names[:4]) + ", ..." * (len(table.answers.names) > 4)
    text = f"{errors.count(table.n_prompts, 'prompt')}, {rows} × {layers}"
    text += f", decoder {table.decoder}"
    text += f"; answers: {names}" if names else "; no answers"
    if table.problems:
        text += f"; {errors.count(len(table.problems), 'problem')}"
    return text


def fragment(table: PromptTable) -> str:
    """The first prompts at the last layer that was read, as HTML."""
    rows = table.last_rows[:MAX_PROMPTS]
    parts = [f"<div>{_said(f'PromptTable: {described(table)}')}</div>"]
    counts = ", ".join(f"{n:,} × {what}" for what, n in table.problem_counts().items())
    if counts:
        parts.append(f"<div>without rows or answers: {_said(counts)}</div>")
    if len(rows):
        name = table.layer_names[-1]
        parts.append(f"<div>at {_said(name)}, at the last position read of each prompt:</div>")
        token_bytes = _bytes(table[rows])
        body = "".join(_line(table, int(row), token_bytes) for row in rows)
        head = "".join(f'<th style="{_CELL}">{_said(word)}</th>' for word in _heading(table))
        parts.append(f'<table style="{notebook.TABLE}"><tr>{head}</tr>{body}</table>')
    more = len(table.last_rows) - len(rows)
    if more > 0:
        parts.append(f"<div>{errors.count(more, 'more prompt')}: to_pandas(), summary()</div>")
    return f'<div style="{notebook.OUTER}">{"".join(parts)}</div>'


_CELL = "padding:1px 8px;text-align:left"


def _heading(table: PromptTable) -> Iterator[str]:
    yield from ("prompt", "text", "best token", "p")
    for name in table.answers.names:
        yield from (name, "rank", "p", "on top from")


def _line(table: PromptTable, row: int, token_bytes: Mapping[int, bytes]) -> str:
    prompt = int(table.prompt[row])
    text = printable.line(table.texts[prompt])
    cells = [str(prompt), text if len(text) <= _TEXT else "…" + text[1 - _TEXT :]]
    cells += [_name(int(table.top_id[row, -1, 0]), token_bytes), _share(table.top_logp[row, -1, 0])]
    first_top = table.first_top
    for answer in range(len(table.answers.names)):
        token = int(table.answers.token[prompt, answer])
        if token < 0:
            cells += ["–"] * 4
            continue
        first = int(first_top[row, answer])
        named = dict(zip(table.layers, table.layer_names, strict=True)).get(first, "–")
        rank = metrics.format_number(float(table.rank[row, -1, answer]), metrics.RANK)
        cells += [_name(token, token_bytes), rank, _share(table.logp[row, -1, answer]), named]
    return "<tr>" + "".join(f'<td style="{_CELL}">{_said(cell)}</td>' for cell in cells) + "</tr>"


def _share(logp: float) -> str:
    return metrics.format_number(float(np.exp(logp)), metrics.SHARE)


def _name(token: int, token_bytes: Mapping[int, bytes]) -> str:
    raw = token_bytes.get(token)
    return printable.token(raw, 20) if raw else f"<{token}>"


def _bytes(table: PromptTable) -> Mapping[int, bytes]:
    """Bytes of all tokens of the rows."""
    if table.spell is None:
        return {}
    ids = [np.ravel(some) for some in (table.token, table.top_id, table.answers.token)]
    named = np.unique(np.concatenate(ids))
    return table.spell(named[named >= 0].tolist())


def _token_words(table: PromptTable) -> dict[int, str]:
    raw = _bytes(table)
    return {number: one.decode("utf-8", "backslashreplace") for number, one in raw.items()}


def _texts(ids: np.ndarray, token_bytes: Mapping[int, str | bytes]) -> np.ndarray:
    different, of_token = np.unique(ids, return_inverse=True)
    words = [token_bytes.get(number) or None for number in different.tolist()]
    return _objects(words)[of_token] if words else np.empty(0, object)


def _objects(values: Any) -> np.ndarray:
    objects = np.empty(len(values), object)
    objects[:] = list(values)
    return objects


def _said(words: str) -> str:
    return html.escape(words, quote=True)
