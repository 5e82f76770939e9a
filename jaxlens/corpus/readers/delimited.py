"""Tables as text: ``.csv`` and ``.tsv`` with a header, read by Python's ``csv``."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from typing import BinaryIO

from jaxlens import errors
from jaxlens.corpus.readers import items, json_lines, missing_text, skip_log, suspects
from jaxlens.files import compression

_SEMICOLON = ";"
"""What spreadsheets of many countries write between fields."""


@contextlib.contextmanager
def field_limit(size: int) -> Iterator[None]:
    """Bounds the fields that ``csv`` reads in the block; the bound is one for the whole process."""
    before = csv.field_size_limit(size)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_csv(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The rows of a ``.csv``; places are lines, where each row begins."""
    return _read(source, request, ",")


def read_tsv(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The rows of a ``.tsv``; see ``read_csv``."""
    return _read(source, request, "\t")


def _read(source: items.Source, request: items.Request, delimiter: str) -> Iterator[items.Item]:
    assert source.path is not None
    with compression.opened(source.path) as stream:
        rows = _Rows(stream, source.path)
        header = rows.header(delimiter, request.fields.names[0])
        columns = _columns(source.path, header, request.fields)
        while (row := rows.next()) is not None:
            yield source.location(rows.began), _values(row, len(header), columns)
            del row


def _columns(path: str, header: list[str], fields: items.Fields) -> list[int | None]:
    """Where the fields stand in a row."""
    text = fields.names[0]
    if text not in header:
        message = f"{path} has no column {text!r} in its first line"
        if not header:
            raise errors.DataError(message, "it is empty: leave it out, or fetch it again")
        if header[0].startswith("sep="):
            raise errors.DataError(
                message, f"remove that line: {header[0][:80]} is for Excel alone"
            )
        shown = ", ".join(header)[:500]
        raise errors.DataError(
            message,
            f"its columns: {shown}; name one: {missing_text.option(header)}; "
            "without a header, write one as the first line",
        )
    for name in fields.names:
        if header.count(name) > 1:
            raise errors.DataError(
                f"{path} has {header.count(name)} columns {name!r}", "name the columns apart"
            )
    return [header.index(name) if name in header else None for name in fields.names]


def _values(row: list[str], width: int, columns: list[int | None]) -> items.Found:
    if not row:
        return skip_log.EMPTY
    if len(row) != width:  # a delimiter or a quote in the text that was not written as such
        return skip_log.UNEVEN
    values = tuple(None if column is None else row[column] for column in columns)
    return values if _is_text(values[0] or "") else skip_log.INVALID_UTF8


def _is_text(text: str) -> bool:
    """Whether it was UTF-8; what was not stands for itself, see ``_Rows``."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Rows:
    """Rows of a stream, each with the line at which it begins."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream = stream
        self._path = path
        self._line = 0
        self._ended = False
        self._waiting: list[str] = []
        self._reader: Iterator[list[str]] = iter(())
        self._row_characters = 0
        self._delimiter = ""
        self.began = 0

    def header(self, delimiter: str, wanted: str) -> list[str]:
        """Reads the first row that is not empty; where only semicolons find the text, so do we."""
        first = self._next_line(json_lines.BOM)
        while first and not first.strip():
            first = self._next_line()
        if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise errors.DataError(f"{self._path} is UTF-16", suspects.utf8_hint(self._path))
        if delimiter == "," and self._split([first], delimiter).count(wanted) == 0:
            delimiter = _SEMICOLON if wanted in self._split([first], _SEMICOLON) else ","
        self._delimiter, self._waiting = delimiter, [first]
        self._reader = csv.reader(self._lines(), delimiter=delimiter)
        return self.next() or []

    def _split(self, text: list[str], delimiter: str) -> list[str]:
        return self._bounded(csv.reader(text, delimiter=delimiter)) or []

    def next(self) -> list[str] | None:
        """The next row; None at the end."""
        self.began = self._line + (0 if self._waiting else 1)
        self._row_characters = 0
        row = self._bounded(self._reader)
        if row is not None and self._ended:
            raise errors.DataError(
                f"{self._path}:{self.began}: a quote that begins here is never closed",
                'write quotes inside a field twice: ""',
            )
        return row

    def _bounded(self, reader: Iterator[list[str]]) -> list[str] | None:
        """A row of fields of up to ``json_lines.LINE_BYTES``."""
        try:
            with field_limit(json_lines.LINE_BYTES):
                return next(reader, None)
        except csv.Error as error:
            raise errors.DataError(
                f"{self._path}:{self.began}: {error}", "look for a quote that is never closed"
            ) from error

    def _lines(self) -> Iterator[str]:
        while line := self._waiting.pop() if self._waiting else self._next_line():
            self._row_characters += len(line)
            if self._row_characters > json_lines.LINE_BYTES or self._is_crowded(line):
                raise self._too_long()
            yield line
        self._ended = True

    def _is_crowded(self, line: str) -> bool:
        """Whether there may be more fields than memory should hold."""
        return (
            len(line) > json_lines.MAX_VALUES
            and line.count(self._delimiter) > json_lines.MAX_VALUES
        )

    def _next_line(self, mark: bytes = b"") -> str:
        line = self._stream.readline(json_lines.LINE_BYTES + 1)
        self._line += 1
        if len(line) > json_lines.LINE_BYTES:
            raise self._too_long()
        # What is not UTF-8 must not end the reading of the other rows.
        return line.removeprefix(mark).decode("utf-8", "surrogateescape")

    def _too_long(self) -> errors.DataError:
        return errors.DataError(
            f"{self._path}:{self.began}: a row of more than {json_lines.LINE_BYTES >> 20} MiB "
            f"or {json_lines.MAX_VALUES} fields begins here",
            "look for a quote that is never closed",
        )
