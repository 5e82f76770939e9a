"""Prompts in Parquet files, a column at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxlens.api.prompts import limits
from jaxlens.corpus.readers import arrow_columns, parquet_pages
from jaxlens.files import compression

# Beside Arrow's own exception, of which not all that it raises are.
_REFUSALS = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)
# So set, Arrow reads a column page by page; by default, all of a row group at once.
_STREAMED = {"pre_buffer": False, "buffer_size": 2**20}
_HEADER_BYTES = 2**12
_BATCH_ROWS = 4096
_BATCH_BYTES = 2**26


def read(
    path: str, require_names: Callable[[str, Sequence[str]], None]
) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """Names of the columns, and their values.

    Raises:
        MissingError: pyarrow is not installed.
        DataError: The file is damaged, or too large.
    """
    parquet = arrow_columns.arrow("pyarrow.parquet")
    arrow = arrow_columns.arrow()
    count = limits.Count(path)
    values: dict[str, list[Any]] = {}
    with compression.opened(path) as stream:
        try:
            with open(path, "rb", buffering=_HEADER_BYTES) as headers:
                chunks = parquet_pages.check(headers)
            file = parquet.ParquetFile(stream, page_checksum_verification=True, **_STREAMED)
            names = file.schema_arrow.names
            require_names(path, names)
            count.add(rows=file.metadata.num_rows)
            for name in names:
                values[name] = []
                for batch in file.iter_batches(_batch_rows(file, name, chunks), columns=[name]):
                    size, n_values = _extent(arrow, batch.column(0))
                    count.add(size=max(size, batch.nbytes), values=n_values)
                    values[name] += batch.column(0).to_pylist()
        except (arrow.ArrowException, *_REFUSALS) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise compression.damaged(path, str(error)) from error
    return tuple(names), values


def _batch_rows(file: Any, name: str, chunks: Sequence[parquet_pages.Chunk]) -> int:
    """Rows of a column that can be held at once.

    No value is larger than the page that holds it or its dictionary, but any number of rows can
    repeat it.
    """
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    mine = [number for number, path in enumerate(paths) if path.split(".")[0] == name.split(".")[0]]
    each = len(paths)
    largest = sum(
        max((chunk.largest for chunk in chunks[number::each]), default=0) for number in mine
    )
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, largest)))


def _extent(arrow: Any, array: Any) -> tuple[int, int]:
    """Bytes and values of an array as Python holds them.

    Members of lists and structures are counted, and a value of a dictionary as often as it is used.
    """
    kinds, kind = arrow.types, array.type
    parts: list[Any] = []
    size = array.nbytes
    if kinds.is_map(kind):
        parts = [array.keys, array.items]
    elif kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        parts = [array.flatten()]
    elif kinds.is_struct(kind):
        parts = array.flatten()
    elif kinds.is_dictionary(kind):
        size = _repeated(array)
    inside = [_extent(arrow, part) for part in parts]
    return (
        max(size, sum(bytes_ for bytes_, _ in inside)),
        len(array) + sum(values for _, values in inside),
    )


def _repeated(array: Any) -> int:
    """Bytes of a dictionary's values as often as they are used, which are not decoded here."""
    compute = arrow_columns.arrow("pyarrow.compute")
    words = array.dictionary
    if not hasattr(words, "total_values_length"):  # not of text or bytes
        return len(array) * max(8, words.nbytes // max(1, len(words)))
    return compute.sum(compute.binary_length(words).take(array.indices)).as_py() or 0
