"""Prompts in cells: CSV and TSV, also as spreadsheets of many countries write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from jaxlens import errors
from jaxlens.api.prompts import limits
from jaxlens.corpus.readers import delimited
from jaxlens.files import compression, encodings

_CELL_BYTES = 2**24
_DELIMITERS = (",", ";", "\t")
_QUOTED = re.compile(r'"[^"]*+"')
# A first line by which a spreadsheet says what stands between cells.
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)


def read(
    path: str, delimiter: str, require_names: Callable[[str, Sequence[str]], None]
) -> tuple[tuple[str, ...], dict[str, list[Any]], dict[int, str]]:
    """The columns of a file.

    Args:
        path: File.
        delimiter: What stands between cells; if empty, the first of comma, semicolon and tab that
            is in the heading outside quotes, or what a line ``sep=;`` before it says.
        require_names: Refuses headings.

    Returns:
        Names of the columns, their values, and rows that cannot be read, from 0, with the reason.

    Raises:
        DataError: It is not UTF-8, damaged, or too large.
    """
    count = limits.Count(path)
    with compression.opened(path) as stream:
        lines = _lines(stream, path, count)
        first = next((line for line in lines if line.strip()), "")
        separator = None if delimiter else _SEPARATOR.fullmatch(first.strip("\r\n"))
        if separator is not None:
            delimiter, first = separator[1], next((line for line in lines if line.strip()), "")
        delimiter = delimiter or _delimiter(first)
        return _columns(path, _counted(first, lines, delimiter, count), delimiter, require_names)


def _lines(stream: BinaryIO, path: str, count: limits.Count) -> Iterator[str]:
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    number, mark = 0, "\ufeff"
    while line := text.readline(count.room + 1):
        number += 1
        try:
            count.add(size=len(line.encode()))
        except UnicodeEncodeError as error:
            raw = line.encode("utf-8", "surrogateescape")
            if number == 1 and (problem := encodings.check(path, raw)) is not None:
                raise errors.DataError(f"{path} {problem.what}", problem.hint) from error
            raise errors.DataError(
                f"{path}, line {number}, is not UTF-8",
                f"save it as UTF-8, or {encodings.hint(path, raw)}",
            ) from error
        yield line.removeprefix(mark)
        mark = ""
    text.detach()


def _delimiter(heading: str) -> str:
    outside = _QUOTED.sub("", heading)
    return next((one for one in _DELIMITERS if one in outside), ",")


def _counted(first: str, rest: Iterator[str], delimiter: str, count: limits.Count) -> Iterator[str]:
    """The lines from the heading on; no line may have more cells than memory should hold."""
    if first:
        count.add(values=first.count(delimiter))
        yield first
    for line in rest:
        count.add(rows=bool(line.strip()), values=line.count(delimiter))
        yield line


def _columns(
    path: str,
    lines: Iterator[str],
    delimiter: str,
    require_names: Callable[[str, Sequence[str]], None],
) -> tuple[tuple[str, ...], dict[str, list[Any]], dict[int, str]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    bad: dict[int, str] = {}
    number = 0
    try:
        with delimited.field_limit(_CELL_BYTES):
            names = next(reader, None) or []
            require_names(path, names)
            columns: list[list[Any]] = [[] for _ in names]
            while (row := next(reader, None)) is not None:
                # A blank line is not a row, unless there is one column, which it leaves empty.
                if not row and len(names) > 1:
                    continue
                row = row or [""]
                if len(row) != len(names):
                    bad[number] = f"row has {len(row)} cells, the heading {len(names)}"
                cells: Sequence[Any] = [None] * len(names) if number in bad else row
                for column, cell in zip(columns, cells, strict=True):
                    column.append(cell)
                number += 1
    except csv.Error as error:
        raise errors.DataError(
            f"{path}: row {number}, from 0: {error}",
            'check the quotes around its cells; a quote inside one is written twice: ""',
        ) from error
    return tuple(names), dict(zip(names, columns, strict=True)), bad
