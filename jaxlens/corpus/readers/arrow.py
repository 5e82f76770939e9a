"""Arrow files, as ``datasets.save_to_disk`` writes them: record batches, mapped into memory.

Reference:
    Apache Arrow, "Serialization and interprocess communication"; ``Message.fbs``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any

from jaxlens import errors
from jaxlens.corpus.readers import arrow_columns, items
from jaxlens.files import compression, refusals

_FILE_MARK = b"ARROW1\0\0"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
# Places of fields in the tables of a message.
_HEADER_OF_MESSAGE, _DATA_OF_DICTIONARY, _COMPRESSION_OF_BATCH = 2, 1, 3


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The rows of an Arrow file, counted from 1.

    Both forms are read, the stream and the random-access file. Batches are mapped, not copied, so
    memory does not grow with them; compressed ones are refused, since they can claim any size.

    Raises:
        MissingError: pyarrow is not installed, or the file does not exist.
        DataError: The file is damaged or compressed, has no such text column, or two of one name.
    """
    assert source.path is not None
    return items.numbered(source, _rows(source.path, request.fields))


def _rows(path: str, fields: items.Fields) -> Iterator[items.Found]:
    pyarrow, ipc = arrow_columns.arrow("pyarrow"), arrow_columns.arrow("pyarrow.ipc")
    with compression.opened(path) as stream:
        mark = stream.read(len(_FILE_MARK))
    if not mark:
        raise compression.damaged(path, "it is empty")
    # In a random-access file a stream follows the mark; what stands behind only says where.
    begin = len(_FILE_MARK) if mark == _FILE_MARK else 0
    call = functools.partial(arrow_columns.call, path)
    with refusals.reading(path), pyarrow.memory_map(path) as mapped:
        mapped.seek(begin)
        call(lambda: _check_messages(path, mapped))
        mapped.seek(begin)
        schema = call(lambda: ipc.open_stream(mapped).schema)
        columns = call(lambda: arrow_columns.require(path, schema, fields))
        mapped.seek(begin)
        tops = {
            column if column in schema.names else column.partition(".")[0]
            for column in columns
            if column
        }
        options = ipc.IpcReadOptions(included_fields=[schema.names.index(top) for top in tops])
        batches = call(lambda: ipc.open_stream(mapped, options=options))
        while (batch := call(lambda: next(batches, None))) is not None:
            call(batch.validate)
            yield from arrow_columns.values(path, batch, columns, _checked)


def _checked(column: Any) -> Any:
    """A column whose offsets are valid; each text in it may still not be UTF-8."""
    pyarrow = arrow_columns.arrow("pyarrow")
    bare = column
    for text, raw in (
        (pyarrow.string(), pyarrow.binary()),
        (pyarrow.large_string(), pyarrow.large_binary()),
        (pyarrow.string_view(), pyarrow.binary_view()),
    ):
        if column.type == text:
            bare = column.view(raw)
    bare.validate(full=True)
    return column


def _check_messages(path: str, mapped: Any) -> None:
    """Refuses compressed batches, and a stream that was cut off between two batches."""
    messages = arrow_columns.arrow("pyarrow.ipc").MessageReader.open_stream(mapped)
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            break
        if _is_compressed(message):
            raise errors.DataError(
                f"{path} is compressed inside", "write it without compression, or as Parquet"
            )
    end = mapped.tell()
    mapped.seek(max(0, end - len(_END_OF_STREAM)))
    if mapped.read(len(_END_OF_STREAM)) != _END_OF_STREAM:
        raise ValueError("it ends without its end mark")


def _is_compressed(message: Any) -> bool:
    if message.type not in ("record batch", "dictionary"):
        return False
    raw = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", raw)
    batch = _table(raw, root, _HEADER_OF_MESSAGE)
    if message.type == "dictionary" and batch is not None:
        batch = _table(raw, batch, _DATA_OF_DICTIONARY)
    return batch is not None and _table(raw, batch, _COMPRESSION_OF_BATCH) is not None


def _table(raw: bytes, table: int, field: int) -> int | None:
    """Where a table inside a table of FlatBuffers stands; None where it is absent."""
    names = table - struct.unpack_from("<i", raw, table)[0]
    if struct.unpack_from("<H", raw, names)[0] < 6 + 2 * field:
        return None
    offset = struct.unpack_from("<H", raw, names + 4 + 2 * field)[0]
    if not offset:
        return None
    return table + offset + struct.unpack_from("<I", raw, table + offset)[0]
