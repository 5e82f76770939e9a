"""Reads the file of ``jaxlens prompts``: which columns are prompts, answers and metadata."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlens import api, errors
from jaxlens.api.prompts import inputs, prompt_file, read_prompts
from jaxlens.api.prompts.table import Problem, PromptTable
from jaxlens.sweep import compilation_cache

PROMPT_COLUMNS, ANSWER_COLUMNS = ("prompt", "text"), ("answer",)
"""Columns that are used unless others are named."""

NO_ANSWER, NOT_TEXT = "answer is missing", "answer is not text"


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns of the file are.

    Attributes:
        prompt: Of the prompts; by default ``prompt``, or else ``text``.
        answers: Of answers; by default ``answer``, if there is one.
        metadata: To be kept; by default all others.
        cluster: To be kept too, where it is not None.
    """

    prompt: str | None = None
    answers: Sequence[str] | None = None
    metadata: Sequence[str] | None = None
    cluster: str | None = None


def read(
    model: str, path: str | Path, columns: Columns, *, strict: bool, **how: Any
) -> PromptTable:
    """Reads every row of a file; see ``prompts.read_prompts`` for the numbers.

    Args:
        model: Directory, GGUF file or hub id.
        path: A file that ``prompt_file`` reads.
        columns: What its columns are.
        strict: Whether a row that cannot be read is refused; if not it stands in ``problems``.
        how: Further arguments of ``read_prompts``.

    Raises:
        ConfigError: A column is not there, or the arguments do not fit.
        DataError: The file is damaged, a row cannot be read with ``strict``, or none can.
        MissingError: The file or the model is not there.
    """
    sheet = prompt_file.read(path)
    resolved = _resolved(sheet, columns)
    answers: dict[str, list[Any]] = {}
    problems: dict[int, list[str]] = {row: [why] for row, why in sheet.bad.items()}
    for name in resolved.answers or ():
        column = [_answer(value) for value in sheet.column(name)]
        answers[name] = [answer for answer, _ in column]
        for row, (_, why) in enumerate(column):
            if row not in sheet.bad and why:
                problems.setdefault(row, []).append(f"{why}: {name}")
    if strict and problems:
        raise _refused(path, min(problems), problems[min(problems)][0], len(problems))
    metadata = {name: sheet.column(name) for name in resolved.metadata or ()}
    texts = [_decoded(value) for value in sheet.column(resolved.prompt or "")]
    how |= {"metadata": metadata, "strict": strict}
    with compilation_cache.of_user():
        try:
            table = read_prompts.read_prompts(api.load_model(model), texts, answers, **how)
        except inputs.UnreadableError as error:
            raise errors.DataError(f"{path}: {error.message}", _HINT) from error
    table = dataclasses.replace(table, problems=_merged(table.problems, problems, sheet.bad))
    if not len(table):
        first = table.problems[0]
        raise errors.DataError(
            f"{path}: none of {table.n_prompts} rows can be read",
            f"the first: row {first.prompt}: {first.what}",
        )
    return table


_HINT = "rows count from 0; mend it, or leave out --strict, which reads the others and counts it"


def _refused(path: object, row: int, why: str, count: int) -> errors.DataError:
    more = f", and {count - 1:,} more rows" if count > 1 else ""
    return errors.DataError(f"{path}: row {row}: {why}{more}", _HINT)


def _merged(
    unread: Sequence[Problem],
    problems: Mapping[int, Sequence[str]],
    bad: Mapping[int, str],
) -> tuple[Problem, ...]:
    """Problems of rows and of prompts; a row that is bad has no further ones."""
    merged = [one for one in unread if one.prompt not in bad]
    merged += [Problem(row, why) for row, several in problems.items() for why in several]
    return tuple(sorted(merged, key=lambda one: one.prompt))


def _resolved(sheet: prompt_file.Table, columns: Columns) -> Columns:
    prompt = columns.prompt
    if prompt is None:
        prompt = next((name for name in PROMPT_COLUMNS if name in sheet.names), None)
    if prompt is None:
        raise errors.ConfigError(
            f"no column {' or '.join(PROMPT_COLUMNS)}",
            f"name one with --prompt-column; the file has: {prompt_file.listed(sheet.names)}",
        )
    answers = columns.answers
    if answers is None:
        answers = [name for name in ANSWER_COLUMNS if name in sheet.names and name != prompt]
    metadata = columns.metadata
    if metadata is None:
        metadata = [name for name in sheet.names if name != prompt and name not in answers]
    if columns.cluster is not None and columns.cluster not in metadata:
        metadata = [*metadata, columns.cluster]
    for name in (prompt, *answers, *metadata):
        sheet.column(name)
    return Columns(prompt, answers, metadata)


def _decoded(value: Any) -> Any:
    """Text where it came as bytes, as from a Parquet column that does not say that it is text."""
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8")
    return value


def _answer(value: Any) -> tuple[Any, str]:
    """An answer as text, or None and the reason; numbers of a file are text too.

    An empty cell is no answer. Of a list, members that are missing have no reason.
    """
    if isinstance(value, (list, tuple)):
        several = [(None, NOT_TEXT) if isinstance(o, (list, tuple)) else _answer(o) for o in value]
        texts = [answer for answer, _ in several]
        if all(answer is None for answer in texts):
            return texts, next((why for _, why in several), NO_ANSWER)
        return texts, next((why for _, why in several if why == NOT_TEXT), "")
    value = _decoded(value)
    if isinstance(value, (bytes, Mapping)):
        return None, NOT_TEXT
    if value is None or value == "" or value != value:
        return None, NO_ANSWER
    return value if isinstance(value, str) else str(value), ""
