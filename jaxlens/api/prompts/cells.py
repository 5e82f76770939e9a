"""Prompts in cells: CSV and TSV, also as spreadsheets of many countries write them."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from jaxlens import errors
from jaxlens.api.prompts import limits
from jaxlens.files import compression

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
        found = _lines(stream, path, count)
        first = next((line for line in found if line.strip()), "")
        said = None if delimiter else _SEPARATOR.fullmatch(first.strip("\r\n"))
        if said is not None:
            delimiter, first = said[1], next((line for line in found if line.strip()), "")
        delimiter = delimiter or _delimiter(first)
        return _columns(path, _counted(first, found, delimiter, count), delimiter, require_names)


def utf_16(path: str) -> errors.DataError:
    """The error for a file in this encoding."""
    command = f"iconv -f UTF-16 -t UTF-8 {shlex.quote(path)} > NEW_FILE"
    return errors.DataError(f"{path} is UTF-16", f"convert it: {command}")


def _lines(stream: BinaryIO, path: str, count: limits.Count) -> Iterator[str]:
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    number, mark = 0, "\ufeff"
    while line := text.readline(count.room + 1):
        number += 1
        if number == 1 and line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise utf_16(path)
        try:
            count.add(size=len(line.encode()))
        except UnicodeEncodeError as error:
            command = f"iconv -f ENCODING -t UTF-8 {shlex.quote(path)} > NEW_FILE"
            raise errors.DataError(
                f"{path}, line {number}, is not UTF-8",
                f"save it as UTF-8, or convert it, from WINDOWS-1252 for instance: {command}",
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
    found: Iterator[str],
    delimiter: str,
    require_names: Callable[[str, Sequence[str]], None],
) -> tuple[tuple[str, ...], dict[str, list[Any]], dict[int, str]]:
    before = csv.field_size_limit(_CELL_BYTES)
    reader = csv.reader(found, delimiter=delimiter, strict=True)
    bad: dict[int, str] = {}
    number = 0
    try:
        names = next(reader, None) or []
        require_names(path, names)
        columns: list[list[Any]] = [[] for _ in names]
        while (row := next(reader, None)) is not None:
            # A blank line is no row, unless there is one column, which it leaves empty.
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
    finally:
        csv.field_size_limit(before)
    return tuple(names), dict(zip(names, columns, strict=True)), bad
