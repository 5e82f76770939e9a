"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxlens import errors
from jaxlens.corpus import archives, pages, skiplog

# Small, since a row can be a whole book.
_BATCH_ROWS = 16
# So set, Arrow reads a column page by page; by default, all of a row group at once.
_STREAMED = {"pre_buffer": False, "buffer_size": 2**20}
_HEADER_BYTES = 2**12
# A hint stays readable beside a table of a thousand columns.
_SHOWN_CHARACTERS = 500
# Beside Arrow's own exception, of which not all that it raises are.
_REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)


def rows(
    path: str, text_field: str, id_field: str, keep: Sequence[str] = ()
) -> Iterator[tuple[Any, ...] | str]:
    """Text, id and kept columns of each row as Python values, or the reason why there are none.

    Raises:
        MissingError: pyarrow is not installed, or the file is not there.
        DataError: The file is damaged, has no such text column, or two of one name.
        StorageError: The system refuses to read.
    """
    parquet = archives.require("pyarrow.parquet")
    with archives.opened(path) as stream:
        with open(path, "rb", buffering=_HEADER_BYTES) as headers:
            _call(path, lambda: pages.check(headers))
        options = {"page_checksum_verification": True, **_STREAMED}
        file = _call(path, lambda: parquet.ParquetFile(stream, **options))
        fields = (text_field, id_field, *keep)
        columns = _columns(path, _call(path, lambda: file.schema_arrow.names), fields)
        for batch in _batches(path, file, columns):
            found = [batch.column(name) if name in columns else None for name in fields]
            for row in range(batch.num_rows):
                yield _values([None if column is None else column[row] for column in found])


def _columns(path: str, names: list[str], fields: Sequence[str]) -> list[str]:
    """The columns to read, the text first, which must be there."""
    if fields[0] not in names:
        shown = ", ".join(names)[:_SHOWN_CHARACTERS]
        raise errors.DataError(f"{path} has no column {fields[0]!r}", f"its columns: {shown}")
    columns = [name for name in dict.fromkeys(fields) if name in names]
    for name in columns:
        if names.count(name) > 1:
            raise errors.DataError(
                f"{path} has {names.count(name)} columns {name!r}", "name the columns apart"
            )
    return columns


def _batches(path: str, file: Any, columns: list[str]) -> Iterator[Any]:
    batches = _call(path, lambda: file.iter_batches(_BATCH_ROWS, columns=columns))
    while (batch := _call(path, lambda: next(batches, None))) is not None:
        yield batch


def _values(scalars: Sequence[Any]) -> tuple[Any, ...] | str:
    try:
        return tuple(map(_value, scalars))
    except UnicodeDecodeError:
        return skiplog.INVALID_UTF8


def _value(scalar: Any) -> Any:
    """The Python value; what has none, such as a date out of range, as it is: no text, no id."""
    try:
        return None if scalar is None else scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (*_REFUSALS, archives.require("pyarrow").ArrowException):
        return scalar


def _call(path: str, work: Callable[[], Any]) -> Any:
    """Runs a call of pyarrow: what it refuses is damage, what the system refuses is not."""
    try:
        return work()
    except OSError as error:
        if error.errno is not None:
            raise
        raise archives.damaged(path, str(error)) from error
    except (*_REFUSALS, archives.require("pyarrow").ArrowException) as error:
        raise archives.damaged(path, str(error)) from error
