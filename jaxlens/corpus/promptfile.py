"""Prompts from files: CSV, TSV, JSON lines, JSON and Parquet, as columns of one value a row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.corpus import archives, lines, pages

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of the formats; all but Parquet may also be compressed: .gz, .bz2, .zst."""

MOST_BYTES = 2**30
"""Largest text that is read: prompts and what is read of them are held in memory."""

_CELL_BYTES = 2**24
_SHOWN_CHARACTERS = 300
# Beside Arrow's own exception, of which not all that it raises are.
_REFUSALS = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


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
        """Rows of the file, bad ones among them."""
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Sequence[Any]:
        """A column by its name.

        Raises:
            ConfigError: There is none of that name.
        """
        if name not in self.columns:
            known = ", ".join(self.names)[:_SHOWN_CHARACTERS]
            raise errors.ConfigError(f"no column {name!r}", f"the file has: {known}")
        return self.columns[name]


def read(path: str | Path) -> Table:
    """Reads a whole file.

    Raises:
        ConfigError: Its suffix names no format.
        MissingError: It is not there, or a package that its format needs is not installed.
        DataError: It is damaged, too large, or has no rows.
        StorageError: The system refuses to read.
    """
    name = str(path)
    stem = next((name[: -len(s)] for s in archives.SUFFIXES[1:] if name.lower().endswith(s)), name)
    suffix = Path(stem).suffix.lower()
    if suffix not in SUFFIXES or (suffix == ".parquet" and stem != name):
        raise errors.ConfigError(f"{name} is no file of prompts", f"name it {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        table = _parquet(name)
    elif suffix in (".csv", ".tsv"):
        table = _separated(name, "," if suffix == ".csv" else "\t")
    else:
        table = _json(name, suffix == ".json")
    if not table.n_rows:
        raise errors.DataError(f"{name} has no rows", "give a file with at least one prompt")
    return table


def _text(path: str) -> bytes:
    with archives.opened(path) as stream:
        found = stream.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise errors.DataError(
            f"{path} holds more than {MOST_BYTES:,} bytes", "split it into several files"
        )
    return found.removeprefix(lines.BOM)


def _separated(path: str, delimiter: str) -> Table:
    try:
        text = _text(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.DataError(
            f"{path} is not UTF-8 at byte {error.start}", "convert it, for instance with iconv"
        ) from error
    before = csv.field_size_limit(_CELL_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, None) or []
        # A blank line is no row, unless there is one column, which it leaves empty.
        rows = [row or [""] for row in reader if row or len(names) == 1]
    except csv.Error as error:
        raise errors.DataError(
            f"{path}, line {reader.line_num}: {error}", "check the quotes around its cells"
        ) from error
    finally:
        csv.field_size_limit(before)
    _require_names(path, names)
    bad = {
        number: f"row has {len(row)} cells, the heading {len(names)}"
        for number, row in enumerate(rows)
        if len(row) != len(names)
    }
    columns = {
        name: [None if number in bad else row[at] for number, row in enumerate(rows)]
        for at, name in enumerate(names)
    }
    return Table(tuple(names), columns, bad)


def _require_names(path: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise errors.DataError(f"{path} has two columns {twice[0]!r}", "name the columns apart")
    if not names:
        raise errors.DataError(f"{path} is empty", "its first line must name the columns")


def _json(path: str, whole: bool) -> Table:
    data = _text(path)
    records: list[Any] = []
    bad: dict[int, str] = {}
    if whole and data.lstrip()[:1] == b"[":
        try:
            records = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise errors.DataError(f"{path} is not JSON: {error}", "check the file") from error
    else:
        for line in filter(None, map(bytes.strip, data.split(b"\n"))):
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError):
                bad[len(records)] = "row is not JSON"
                records.append(None)
    names: dict[str, None] = {}
    for number, record in enumerate(records):
        if isinstance(record, dict):
            names |= dict.fromkeys(record)
        else:
            bad.setdefault(number, "row is not an object")
    known = [record if isinstance(record, dict) else {} for record in records]
    return Table(tuple(names), {n: [one.get(n) for one in known] for n in names}, bad)


def _parquet(path: str) -> Table:
    parquet = archives.arrow("pyarrow.parquet")
    arrow = archives.arrow("pyarrow")
    with archives.opened(path) as stream:
        try:
            with open(path, "rb") as headers:
                pages.check(headers)
            file = parquet.ParquetFile(stream, page_checksum_verification=True)
            names = file.schema_arrow.names
            _require_names(path, names)
            columns: dict[str, list[Any]] = {name: [] for name in names}
            for batch in _bounded(path, file):
                for name in names:
                    columns[name] += batch.column(name).to_pylist()
        except (arrow.ArrowException, *_REFUSALS) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise archives.damaged(path, str(error)) from error
    return Table(tuple(names), columns, {})


def _bounded(path: str, file: Any) -> Iterator[Any]:
    size = 0
    for batch in file.iter_batches(1024):
        size += batch.nbytes
        if size > MOST_BYTES:
            raise errors.DataError(
                f"{path} holds more than {MOST_BYTES:,} bytes", "split it into several files"
            )
        yield batch
