"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxlens.corpus.readers import arrow_columns, items, parquet_pages
from jaxlens.files import compression

# Small, since a row can be a whole book; less, where that many could be larger than this.
_BATCH_ROWS = 16
_BATCH_BYTES = 2**25
# So set, Arrow reads a column page by page; by default, all of a row group at once.
_STREAMED = {"pre_buffer": False, "buffer_size": 2**20}
_HEADER_BYTES = 2**12


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The rows of a Parquet file, counted from 1.

    Raises:
        MissingError: pyarrow is not installed, or the file does not exist.
        DataError: The file is damaged, has no such text column, or two of one name.
        StorageError: The system refused to read.
    """
    assert source.path is not None
    return items.numbered(source, rows(source.path, request.fields))


def rows(path: str, fields: items.Fields) -> Iterator[items.Found]:
    """The fields of each row as Python values, or the reason why there are none."""
    parquet = arrow_columns.arrow("pyarrow.parquet")
    with compression.opened(path) as stream:
        with open(path, "rb", buffering=_HEADER_BYTES) as headers:
            chunks = arrow_columns.call(path, lambda: parquet_pages.check(headers))
        options = {"page_checksum_verification": True, **_STREAMED}
        file = arrow_columns.call(path, lambda: parquet.ParquetFile(stream, **options))
        schema = arrow_columns.call(path, lambda: file.schema_arrow)
        columns = arrow_columns.call(path, lambda: arrow_columns.require(path, schema, fields))
        n_rows = arrow_columns.call(path, lambda: _batch_rows(file, columns, chunks))
        for batch in _batches(path, file, columns, n_rows):
            yield from arrow_columns.values(path, batch, columns)
            del batch


def _batch_rows(file: Any, columns: list[str | None], chunks: list[parquet_pages.Chunk]) -> int:
    """Rows that can be held at once.

    No value is larger than the page that holds it or its dictionary, but any number of rows can
    repeat it: a dictionary and a prefix take no room in a page.

    Args:
        file: Of pyarrow.
        columns: Columns to read.
        chunks: See ``parquet_pages.check``.

    Raises:
        ValueError: A column that is read unpacks to what no text does.
    """
    leaves = [file.schema.column(index).path for index in range(len(file.schema))]
    read_chunks = [
        chunk
        for number, chunk in enumerate(chunks)
        if leaves[number % len(leaves)] in columns or len(chunks) % len(leaves)
    ]
    if bomb := max((chunk.bomb for chunk in read_chunks), default=0):
        raise ValueError(f"a page of little more than nothing claims {bomb} bytes unpacked")
    largest = max((chunk.largest for chunk in read_chunks), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, largest)))


def _batches(path: str, file: Any, columns: list[str | None], n_rows: int) -> Iterator[Any]:
    names = list(dict.fromkeys(filter(None, columns)))
    batches = arrow_columns.call(path, lambda: file.iter_batches(n_rows, columns=names))
    while (batch := arrow_columns.call(path, lambda: next(batches, None))) is not None:
        yield batch
        del batch
