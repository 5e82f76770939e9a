"""What a Parquet file claims of its pages, checked before Arrow takes as much memory.

The header of a page says how many bytes follow, and Arrow allocates and unpacks whatever it says:
for a file of three kilobytes pyarrow 26 takes four gigabytes, as ``test_pyarrow_alone_takes_...``
of ``tests/corpus/readers/test_parquet.py`` shows. pyarrow's own view of the footer does not help,
since it ends the process where the footer is damaged.

Reference:
    Apache Thrift, "Compact protocol"; Apache Parquet, ``parquet.thrift``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from jaxlens.corpus.readers import json_lines

MAX_BYTES = 2 * json_lines.LINE_BYTES
"""Largest page: it holds at least one text, and ends soon after it is large enough."""

# A page may be this large whatever it is packed into; beyond, no packing is better than 1 : 32,768.
_SMALL_BYTES = 2**24
_MAX_RATIO = 2**15
# Of a column that is read, a larger page must be of text, which no packing makes this small.
_TEXT_RATIO = 2**10
# Some old writers leave the header of the dictionary out of a chunk's size.
_SLACK_BYTES = 100
_MAX_DEPTH = 16

_TAIL_BYTES = 8
"""At the end of the file: the length of the footer, and a mark."""

# Numbers of fields: the way from the footer to a column chunk's metadata, and what is read there.
_GROUPS, _CHUNKS, _METADATA = 4, 1, 3
_VALUES_OF_CHUNK, _STORED_OF_CHUNK, _DATA_AT, _DICTIONARY_AT = 5, 7, 9, 11
# The same of a page's header, and the number of values, which is first in each kind of page.
_INFLATED, _STORED, _DATA, _DICTIONARY, _DATA_2, _VALUES = 2, 3, 5, 7, 8, 1

# Types of the compact protocol.
_TRUE, _FALSE, _I8, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


@dataclass(slots=True)
class Chunk:
    """Pages of a column in a group of rows.

    Attributes:
        largest: Bytes of the largest page, unpacked.
        bomb: Bytes of the largest page that is packed too small to be text; 0 for none.
    """

    largest: int = 0
    bomb: int = 0


def check(stream: BinaryIO) -> list[Chunk]:
    """Walks over all pages of a file without reading them.

    Args:
        stream: The file; best with a small buffer.

    Returns:
        The chunks: the columns of the first group of rows, then those of the next.

    Raises:
        ValueError: A page claims what its file cannot hold, or the file is damaged.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    footer_bytes = int.from_bytes(stream.read(4), "little")
    if stream.read(4) != b"PAR1" or footer_bytes > size - _TAIL_BYTES:
        raise ValueError("it has no footer of the format")
    stream.seek(size - _TAIL_BYTES - footer_bytes)
    footer = io.BytesIO(stream.read(footer_bytes))
    return [_check_chunk(stream, chunk, size) for chunk in _chunks(footer)]


def _chunks(footer: BinaryIO) -> Iterator[Mapping[int, int]]:
    """Metadata of every column chunk."""
    for field, kind in _fields(footer):
        if field != _GROUPS:
            _skip(footer, kind)
            continue
        for _ in _elements(footer, kind):
            for inner, list_kind in _fields(footer):
                if inner != _CHUNKS:
                    _skip(footer, list_kind)
                    continue
                for _ in _elements(footer, list_kind):
                    yield _integers(footer, _STRUCT, _METADATA)


def _check_chunk(stream: BinaryIO, chunk: Mapping[int, int], size: int) -> Chunk:
    pages = Chunk()
    at, values = _count(chunk, _DATA_AT), _count(chunk, _VALUES_OF_CHUNK)
    if 0 < chunk.get(_DICTIONARY_AT, 0) < at:
        at = chunk[_DICTIONARY_AT]
    stop = min(at + _count(chunk, _STORED_OF_CHUNK) + _SLACK_BYTES, size)
    while values > 0 and at < stop:
        stream.seek(at)
        page = _integers(stream, _STRUCT)
        inflated, stored = _count(page, _INFLATED), _count(page, _STORED)
        at = stream.tell() + stored
        if at > stop or inflated > min(MAX_BYTES, max(_SMALL_BYTES, _MAX_RATIO * stored)):
            raise ValueError(f"a page claims {stored} bytes, {inflated} unpacked")
        if page.get(_inside(_DICTIONARY, _VALUES), 0) > inflated:
            raise ValueError("a dictionary claims more values than it has bytes")
        for kind in (_DATA, _DATA_2):
            values -= max(0, page.get(_inside(kind, _VALUES), 0))
        pages.largest = max(pages.largest, inflated)
        if inflated > max(_SMALL_BYTES, _TEXT_RATIO * stored):
            pages.bomb = max(pages.bomb, inflated)
    return pages


def _count(fields: Mapping[int, int], field: int) -> int:
    value = fields.get(field, -1)
    if value < 0:
        raise ValueError("its metadata makes no sense")
    return value


def _inside(outer: int, inner: int) -> int:
    """Key of a field inside a structure that is a field."""
    return outer << 16 | inner


def _integers(stream: BinaryIO, kind: int, wanted: int | None = None) -> dict[int, int]:
    """Integers of a structure and of those directly below, or only of one of these.

    Args:
        stream: Stands at the structure.
        kind: Its type.
        wanted: The one structure below to read, whose fields then have their own numbers.
    """
    if kind != _STRUCT:
        raise ValueError("its metadata makes no sense")
    integers: dict[int, int] = {}
    for field, inner_kind in _fields(stream):
        if inner_kind == _STRUCT and wanted in (None, field):
            for inner, leaf in _fields(stream):
                key = inner if wanted else _inside(field, inner)
                integers |= {key: _integer(stream)} if leaf in (_I32, _I64) else {}
                _skip(stream, _TRUE if leaf in (_I32, _I64) else leaf)
        elif inner_kind in (_I32, _I64) and wanted is None:
            integers[field] = _integer(stream)
        else:
            _skip(stream, inner_kind)
    return integers


def _fields(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """Numbers and types of a structure's fields; each is read or skipped before the next."""
    number = 0
    while head := _byte(stream):
        number = number + (head >> 4) if head >> 4 else _integer(stream)
        yield number, head & 15


def _elements(stream: BinaryIO, kind: int) -> Iterator[int]:
    """Types of a list's elements; each is read or skipped before the next."""
    if kind not in (_LIST, _SET):
        raise ValueError("its metadata makes no sense")
    head = _byte(stream)
    count = head >> 4 if head >> 4 < 15 else _varint(stream)
    for _ in range(count):
        yield head & 15


def _skip(stream: BinaryIO, kind: int, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("its metadata is nested too deeply")
    if kind == _I8:
        _byte(stream)
    elif kind in (_I16, _I32, _I64):
        _varint(stream)
    elif kind in (_DOUBLE, _BINARY):
        stream.seek(8 if kind == _DOUBLE else min(_varint(stream), 2**48), os.SEEK_CUR)
    elif kind in (_LIST, _SET):
        for inner in _elements(stream, kind):
            # A truth value is in its type where it is a field, and a byte where it is in a list.
            _skip(stream, _I8 if inner in (_TRUE, _FALSE) else inner, depth + 1)
    elif kind == _STRUCT:
        for _, inner in _fields(stream):
            _skip(stream, inner, depth + 1)
    elif kind not in (_TRUE, _FALSE):
        raise ValueError("its metadata makes no sense")


def _integer(stream: BinaryIO) -> int:
    value = _varint(stream)
    return (value >> 1) ^ -(value & 1)


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = _byte(stream)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a number in its metadata does not end")


def _byte(stream: BinaryIO) -> int:
    byte = stream.read(1)
    if not byte:
        raise ValueError("it ends within its metadata")
    return byte[0]
