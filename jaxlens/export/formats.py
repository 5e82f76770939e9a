"""Arrow tables into files: Parquet and CSV."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from jaxlens import errors
from jaxlens.files import publish, system

Format = Literal["parquet", "csv"]


class _Sink(io.RawIOBase):
    """What Arrow writes to; it never hears of a disk that fails, `check` raises that."""

    def __init__(self, stream: publish.Stream) -> None:
        self._stream = stream
        self._error: errors.JaxlensError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            if self._error is None:
                self._stream.write(view)
        except errors.JaxlensError as error:
            self._error = error
        return view.nbytes

    def writable(self) -> bool:
        return True


def write(
    path: str | Path,
    to: Format,
    form: pa.Schema,
    tables: Iterable[pa.Table],
    disk: system.Disk = system.DISK,
) -> tuple[int, int]:
    """Writes tables into one file, which appears when all of them are in it.

    Parquet is compressed by zstd, has a row group for each table, and checksums of its pages.
    CSV has one line of headings; texts are quoted, nulls are empty, and numbers have as many
    digits as it takes to read the same float32 again. A path that ends in ``.gz`` is compressed.

    Args:
        path: File to create.
        to: Its format.
        form: Schema of the tables.
        tables: What to write.
        disk: System calls.

    Returns:
        Number of records, and bytes of the file.

    Raises:
        ConfigError: The file exists.
        StorageError: The system refused.
    """
    records = 0
    with publish.stream(path, disk, replace=False) as stream:
        sink = _Sink(stream)
        open_writer = _parquet if to == "parquet" else _csv
        with open_writer(sink, form, str(path)) as writer:
            for table in tables:
                writer.write_table(table, table.num_rows)
                sink.check()
                records += table.num_rows
        sink.check()
    return records, stream.size


def encode(path: str | Path, to: Format, form: pa.Schema, tables: Iterable[pa.Table]) -> bytes:
    """The bytes of a file, see `write`, for what is no file."""
    sink = io.BytesIO()
    open_writer = _parquet if to == "parquet" else _csv
    with open_writer(sink, form, str(path)) as writer:
        for table in tables:
            writer.write_table(table, table.num_rows)
    return sink.getvalue()


@contextlib.contextmanager
def _parquet(sink: Any, form: pa.Schema, _: str) -> Generator[Any]:
    # Dictionaries help texts and small integers; for floats they are tried in vain.
    small = [field.name for field in form if not pa.types.is_floating(field.type)]
    with pyarrow.parquet.ParquetWriter(
        sink, form, compression="zstd", use_dictionary=small, write_page_checksum=True
    ) as writer:
        yield writer


@contextlib.contextmanager
def _csv(sink: Any, form: pa.Schema, path: str) -> Generator[Any]:
    with contextlib.ExitStack() as stack:
        target: Any = sink
        if path.endswith(".gz"):  # without name and time: the same rows give the same bytes
            target = stack.enter_context(gzip.GzipFile("", "wb", 6, sink, mtime=0))
        yield stack.enter_context(pyarrow.csv.CSVWriter(target, form))
