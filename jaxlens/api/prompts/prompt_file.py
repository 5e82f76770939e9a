"""Prompts from files: CSV, TSV, JSON lines, JSON and Parquet, as columns of one value a row."""

from __future__ import annotations

import codecs
import collections
import io
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jaxlens import errors
from jaxlens.api.prompts import cells, limits, parquet
from jaxlens.corpus.readers import json_lines
from jaxlens.files import compression, encodings, file_types

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of the formats; all but Parquet may also be compressed: .gz, .bz2, .zst."""

NOT_JSON, NOT_UTF8, NOT_OBJECT = "row is not JSON", "row is not UTF-8", "row is not an object"
TWICE = "row holds an object that names a key twice"

_SHOWN_CHARACTERS = 300
_MARKS = (b",", b"[", b"{")


@dataclass(frozen=True)
class Table:
    """A file of prompts.

    Attributes:
        names: Columns, in the order of the file.
        columns: Values of each; None where a row has none.
        bad: Rows that could not be read at all, counted from 0, and why. Their values are None.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    bad: Mapping[int, str]

    @property
    def n_rows(self) -> int:
        """Rows of the file, bad ones among them; 0 where there is no column."""
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Sequence[Any]:
        """A column by its name.

        Raises:
            ConfigError: There is none of that name.
        """
        if name not in self.columns:
            raise errors.ConfigError(f"no column {name!r}", f"the file has: {listed(self.names)}")
        return self.columns[name]


def listed(names: Sequence[str]) -> str:
    """Names of columns as a shell takes them, as many as have room in a message."""
    shown = ", ".join(map(shlex.quote, names[:_SHOWN_CHARACTERS]))
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + " ..."


def read(path: str | Path) -> Table:
    """Reads a whole file.

    Raises:
        ConfigError: Its suffix names no format.
        MissingError: It does not exist, or a package that its format needs is not installed.
        DataError: It is damaged, holds more than ``limits`` allows, or has no rows.
        StorageError: The system refused to read.
    """
    name = str(path)
    stem = next(
        (name[: -len(s)] for s in compression.SUFFIXES[1:] if name.lower().endswith(s)), name
    )
    suffix = Path(stem).suffix.lower()
    if suffix not in SUFFIXES or (suffix == ".parquet" and stem != name):
        raise errors.ConfigError(
            f"{name} is not a file of prompts: its name ends in none of their suffixes",
            f"name it {', '.join(SUFFIXES)}",
        )
    if suffix != ".parquet" and os.path.isfile(name):  # a pipe can be read once
        _require_text(name, stem != name)
    if suffix == ".parquet":
        table = Table(*parquet.read(name, _require_names), {})
    elif suffix in (".csv", ".tsv"):
        delimiter = "" if suffix == ".csv" else "\t"
        table = Table(*cells.read(name, delimiter, _require_names))
    else:
        table = _json(name, suffix == ".json")
    if not table.n_rows:
        hint = 'each row is an object with a prompt, such as {"prompt": "The tea was"}'
        for row, why in table.bad.items():
            raise errors.DataError(f"{name}, row {row}, from 0: {why}; none can be read", hint)
        raise errors.DataError(f"{name} has no rows", "give a file with at least one prompt")
    return table


def _require_text(path: str, compressed: bool) -> None:
    """Refuses what lies under the name of a text and is none.

    Raises:
        DataError: Saying what it is, with the remedy.
    """
    with compression.opened(path) as stream:
        kind = file_types.of_text(path, stream.read(file_types.HEAD_BYTES))
    if kind is not None:
        raise errors.DataError(f"{path} {'holds' if compressed else 'is'} {kind[0]}", kind[1])


def _require_names(path: str, names: Sequence[str]) -> None:
    """Refuses headings that name no column, or two alike."""
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        raise errors.DataError(f"{path} has two columns {twice[0]!r}", "name the columns apart")
    if not names:
        raise errors.DataError(f"{path} is empty", "its first line must name the columns")


def _json(path: str, whole: bool) -> Table:
    count = limits.Count(path)
    bad: dict[int, str] = {}
    with compression.opened(path) as stream:
        if whole:
            data = stream.read(count.room + 1)
            limits.Count(path).add(size=len(data))
            data = data.removeprefix(json_lines.BOM)
            records = _array(path, data, count)
            if records is None:
                records = list(_records(io.BytesIO(data), path, count, bad))
                if len(bad) == len(records) and isinstance(one := _value(data), dict):
                    records, bad = [one], {}
        else:
            records = list(_records(stream, path, count, bad))
    names: dict[str, None] = {}
    for number, record in enumerate(records):
        if isinstance(record, dict) and not limits.is_deep(record):
            names |= dict.fromkeys(record)
            continue
        why = limits.TOO_DEEP if isinstance(record, dict) else NOT_OBJECT
        bad.setdefault(number, why)
        records[number] = {}
    limits.Count(path).add(values=len(names) * len(records))
    return Table(tuple(names), {n: [one.get(n) for one in records] for n in names}, bad)


def _array(path: str, data: bytes, count: limits.Count) -> list[Any] | None:
    """Members of one array; None where the file is something else.

    Raises:
        DataError: It begins as an array and is damaged, or holds too much.
    """
    if data.lstrip()[:1] != b"[":
        return None
    count.add(values=sum(map(data.count, _MARKS)))
    value = _value(data)
    if isinstance(value, list):
        count.add(rows=len(value))
        return value
    hint = "check the file, or write one object a line"
    raise errors.DataError(f"{path} cannot be read as JSON: {value}", hint)


def _records(
    stream: BinaryIO, path: str, count: limits.Count, bad: dict[int, str]
) -> Iterator[Any]:
    """A value for each line that is not blank; of a bad one None, and why it is bad."""
    number, mark = 0, json_lines.BOM
    while line := stream.readline(count.room + 1):
        values = sum(map(line.count, _MARKS))
        count.add(size=len(line), rows=bool(line.strip()), values=values)
        line, mark = line.removeprefix(mark).strip(), b""
        if not number and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise errors.DataError(f"{path} is UTF-16", encodings.hint(path, line))
        if not line:
            continue
        value = _value(line)
        if isinstance(value, _Refused):
            bad[number] = value.why
            value = None
        yield value
        number += 1


class _Refused:
    """Data that are not JSON.

    Attributes:
        why: A reason, to be counted.
        details: Of this one.
    """

    def __init__(self, why: str, details: object) -> None:
        self.why = why
        self.details = str(details)

    def __str__(self) -> str:
        return self.details


def _value(data: bytes) -> Any:
    """A value of JSON, or a `_Refused`."""
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _Refused(NOT_UTF8, f"byte {error.start} is not UTF-8")
    except RecursionError:
        return _Refused(limits.TOO_DEEP, "it is nested too deeply")
    except _TwiceError as error:
        return _Refused(TWICE, error)
    except ValueError as error:
        return _Refused(NOT_JSON, error)


class _TwiceError(ValueError):
    """Which of two values of a key was meant, nobody knows."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise _TwiceError("an object names a key twice")
    return mapping


def _whole(digits: str) -> int | str:
    """A whole number; one with more digits than Python converts stays text."""
    try:
        return int(digits)
    except ValueError:
        return digits


# Raw control characters inside strings are common in scraped text, and nothing is lost.
_DECODER = json.JSONDecoder(parse_int=_whole, object_pairs_hook=_object, strict=False)
