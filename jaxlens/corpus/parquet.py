"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def rows(path: str, text_field: str, id_field: str) -> Iterator[tuple[Any, Any] | str]:
    """Text and id of each row as Python values, or the reason why there are none.

    Raises:
        MissingError: pyarrow is not installed, or the file is not there.
        DataError: The file is damaged, has no such text column, or two of one name.
        StorageError: The system refuses to read.
    """
    parquet = _package("pyarrow.parquet")
    with archives.opened(path) as stream:
        with open(path, "rb", buffering=_HEADER_BYTES) as headers:
            _call(path, lambda: pages.check(headers))
        options = {"page_checksum_verification": True, **_STREAMED}
        file = _call(path, lambda: parquet.ParquetFile(stream, **options))
        columns = _columns(path, _call(path, lambda: file.schema_arrow.names), text_field, id_field)
        for batch in _batches(path, file, columns):
            texts, *others = (batch.column(name) for name in columns)
            idents = others[0] if others else texts if text_field == id_field else None
            for row in range(batch.num_rows):
                yield _values(texts[row], None if idents is None else idents[row])


def _columns(path: str, names: list[str], text_field: str, id_field: str) -> list[str]:
    """The columns to read, the text first."""
    if text_field not in names:
        shown = ", ".join(names)[:_SHOWN_CHARACTERS]
        raise errors.DataError(f"{path} has no column {text_field!r}", f"its columns: {shown}")
    columns = [name for name in dict.fromkeys((text_field, id_field)) if name in names]
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


def _values(text: Any, ident: Any) -> tuple[Any, Any] | str:
    try:
        return _value(text), _value(ident)
    except UnicodeDecodeError:
        return skiplog.INVALID_UTF8


def _value(scalar: Any) -> Any:
    """The Python value; what has none, such as a date out of range, as it is: no text, no id."""
    try:
        return None if scalar is None else scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (*_REFUSALS, _package("pyarrow").ArrowException):
        return scalar


def _call(path: str, work: Callable[[], Any]) -> Any:
    """Runs a call of pyarrow: what it refuses is damage, what the system refuses is not."""
    try:
        return work()
    except OSError as error:
        if error.errno is not None:
            raise
        raise archives.damaged(path, str(error)) from error
    except (*_REFUSALS, _package("pyarrow").ArrowException) as error:
        raise archives.damaged(path, str(error)) from error


def _package(name: str) -> Any:
    return errors.require_package(name, "data", "Parquet files")
