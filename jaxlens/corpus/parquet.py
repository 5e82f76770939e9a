"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jaxlens import errors
from jaxlens.corpus import archives

# Small, since a row can be a whole book.
_BATCH_ROWS = 16
# So set, Arrow reads a column page by page; by default, all of a row group at once.
_STREAMED = {"pre_buffer": False, "buffer_size": 2**20}


def rows(path: str, text_field: str, id_field: str) -> Iterator[tuple[Any, Any] | None]:
    """Text and id of each row as Python values, None where they are not UTF-8.

    Raises:
        MissingError: pyarrow is not installed, or the file is not there.
        DataError: The file is damaged, or has no such text column.
        StorageError: The system refuses to read.
    """
    parquet = archives.require("pyarrow.parquet")
    with archives.opened(path) as stream:
        options = {"page_checksum_verification": True, **_STREAMED}
        file = _call(path, lambda: parquet.ParquetFile(stream, **options))
        names = file.schema_arrow.names
        if text_field not in names:
            raise errors.DataError(
                f"{path} has no column {text_field!r}", f"its columns: {', '.join(names)}"
            )
        columns = [name for name in dict.fromkeys((text_field, id_field)) if name in names]
        for batch in _batches(path, file, columns):
            idents = batch.column(id_field) if id_field in columns else [None] * batch.num_rows
            for text, ident in zip(batch.column(text_field), idents, strict=True):
                yield _values(text, ident)


def _batches(path: str, file: Any, columns: list[str]) -> Iterator[Any]:
    batches = _call(path, lambda: file.iter_batches(_BATCH_ROWS, columns=columns))
    while (batch := _call(path, lambda: next(batches, None))) is not None:
        yield batch


def _values(text: Any, ident: Any) -> tuple[Any, Any] | None:
    try:
        return text.as_py(), None if ident is None else ident.as_py()
    except UnicodeDecodeError:
        return None


def _call(path: str, work: Callable[[], Any]) -> Any:
    """Runs a call of pyarrow: what it refuses is damage, what the system refuses is not."""
    try:
        return work()
    except OSError as error:
        if error.errno is not None:
            raise
        raise archives.damaged(path, str(error)) from error
    except (ValueError, TypeError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise archives.damaged(path, str(error)) from error
