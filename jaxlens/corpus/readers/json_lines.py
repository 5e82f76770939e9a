"""Lines of JSON: the text and the id of each, or the reason why it has none."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from jaxlens.corpus.readers import items, skip_log
from jaxlens.files import compression

LINE_BYTES = 256 * 2**20
"""Longest line; no more than this is read at once."""

MAX_VALUES = 2**22
"""Most commas and brackets of a line, outside its strings.

Each value takes up to a hundred bytes once parsed, so a line of nothing else would take gigabytes.
"""

BOM = b"\xef\xbb\xbf"

_MARKS = (b",", b"[", b"{")
_VALUES = re.compile(rb'"[^"]*+"|[,\[{]')


def read_file(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The records of a file, one a line."""
    assert source.path is not None
    with compression.opened(source.path) as stream:
        yield from items.numbered(source, read(stream, request.fields))


def read(stream: BinaryIO, fields: items.Fields) -> Iterator[items.Found]:
    """What each line holds, one after the other.

    A line of ``n`` bytes takes up to ``3 n`` while it is parsed, its text among it, and ``9 n``
    where one of its characters is beyond U+FFFF; afterwards only the values of the fields are left.

    Args:
        stream: Bytes; a byte-order mark at their start is dropped.
        fields: To take of each object.
    """
    make, mark = decoder(fields.parts), BOM
    while (line := next_line(stream)) != b"":
        values = skip_log.TOO_LONG if line is None else record(line.removeprefix(mark), make)
        mark = b""
        del line  # it may be huge, and whoever takes the text may keep us waiting
        if isinstance(values, dict):
            values = fields.pick(values)
        yield values
        del values


def next_line(stream: BinaryIO) -> bytes | None:
    """The next line, empty at the end; None for one longer than the bound."""
    line = stream.readline(LINE_BYTES + 1)
    if len(line) <= LINE_BYTES or line.endswith(b"\n"):
        return line
    while line and not line.endswith(b"\n"):
        line = stream.readline(io.DEFAULT_BUFFER_SIZE)
    return None


def record(line: bytes, decoder: json.JSONDecoder) -> dict[str, Any] | str:
    """The object that a line is, or the reason why it is none."""
    if not line or line.isspace():
        return skip_log.EMPTY
    if is_crowded(line):
        return skip_log.TOO_MANY_VALUES
    try:
        return checked(decoder.decode(line.decode("utf-8")))
    except UnicodeDecodeError:
        return skip_log.INVALID_UTF8
    except RecursionError:
        return skip_log.TOO_DEEP
    except ValueError:
        return skip_log.BAD_JSON


def checked(value: Any) -> dict[str, Any] | str:
    """A value that is to be a record, or the reason why it is none."""
    if isinstance(value, items.Ambiguous):
        return skip_log.DUPLICATE_KEY
    return value if isinstance(value, dict) else skip_log.NOT_AN_OBJECT


def decoder(names: set[str]) -> json.JSONDecoder:
    """A decoder that tells an object which holds one of these names twice.

    Building objects this way takes 0.4 µs of a line's 3; to count the names in the bytes first
    takes longer, and misses those that are spelled with escapes.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs) and any(
            sum(key == name for key, _ in pairs) > 1 for name in names
        ):
            return items.Ambiguous(record)
        return record

    # Raw control characters inside strings are common in scraped text, and nothing is lost.
    return json.JSONDecoder(strict=False, object_pairs_hook=build)


def is_crowded(line: bytes) -> bool:
    """Whether a line holds more than ``MAX_VALUES`` values."""
    if len(line) <= MAX_VALUES or sum(map(line.count, _MARKS)) <= MAX_VALUES:
        return False
    # Without its escapes, a string ends at the next quote.
    plain = line.replace(rb"\\", b"").replace(rb"\"", b"")
    values = 0
    for match in _VALUES.finditer(plain):
        values += plain[match.start()] != 0x22
        if values > MAX_VALUES:
            return True
    return False
