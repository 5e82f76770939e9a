"""Lines of JSON: the text and the id of each, or the reason why it has none."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from jaxlens.corpus import skiplog

LINE_BYTES = 256 * 2**20
"""Longest line; no more than this is read at once."""

MOST_VALUES = 2**22
"""Most commas and brackets of a line, outside its strings.

Each value takes up to a hundred bytes once parsed, so a line of nothing else would take gigabytes.
"""

BOM = b"\xef\xbb\xbf"

Found = tuple[Any, ...] | str
"""Text, id and kept fields, as they stand there, or the reason why there are none."""

_MARKS = (b",", b"[", b"{")
_VALUES = re.compile(rb'"[^"]*+"|[,\[{]')


class _Ambiguous(dict[str, Any]):
    """An object in which a key that matters stands more than once."""


def read(
    stream: BinaryIO, text_field: str, id_field: str, keep: Sequence[str] = ()
) -> Iterator[Found]:
    """What each line holds, one after the other.

    A line of ``n`` bytes takes up to ``3 n`` while it is parsed, its text among it, and ``9 n``
    where one of its characters is beyond U+FFFF; afterwards only its text is left.

    Args:
        stream: Bytes; a byte-order mark at their start is dropped.
        text_field: Field of the text.
        id_field: Field of the id.
        keep: Further fields that are wanted.
    """
    fields = (text_field, id_field, *keep)
    decoder = _decoder(set(fields))
    mark = BOM
    while (line := _next(stream)) != b"":
        found = skiplog.TOO_LONG if line is None else _record(line.removeprefix(mark), decoder)
        mark = b""
        del line  # it may be huge, and whoever takes the text may keep us waiting
        if isinstance(found, dict):
            found = tuple(found.get(name) for name in fields)
        yield found
        del found


def _next(stream: BinaryIO) -> bytes | None:
    """The next line, empty at the end; None for one longer than the bound."""
    line = stream.readline(LINE_BYTES + 1)
    if len(line) <= LINE_BYTES or line.endswith(b"\n"):
        return line
    while line and not line.endswith(b"\n"):
        line = stream.readline(io.DEFAULT_BUFFER_SIZE)
    return None


def _record(line: bytes, decoder: json.JSONDecoder) -> dict[str, Any] | str:
    if not line or line.isspace():
        return skiplog.EMPTY
    if _is_crowded(line):
        return skiplog.TOO_MANY_VALUES
    try:
        record = decoder.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return skiplog.INVALID_UTF8
    except RecursionError:
        return skiplog.TOO_DEEP
    except ValueError:
        return skiplog.BAD_JSON
    if isinstance(record, _Ambiguous):
        return skiplog.DUPLICATE_KEY
    return record if isinstance(record, dict) else skiplog.NOT_AN_OBJECT


def _decoder(names: set[str]) -> json.JSONDecoder:
    """A decoder that tells an object which holds one of these names twice.

    Building objects this way takes 0.4 µs of a line's 3; to count the names in the bytes first
    takes longer, and misses those that are spelled with escapes.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs) and any(
            sum(key == name for key, _ in pairs) > 1 for name in names
        ):
            return _Ambiguous(record)
        return record

    # Raw control characters inside strings are common in scraped text, and nothing is lost.
    return json.JSONDecoder(strict=False, object_pairs_hook=build)


def _is_crowded(line: bytes) -> bool:
    """Whether a line holds more than ``MOST_VALUES`` values."""
    if len(line) <= MOST_VALUES or sum(map(line.count, _MARKS)) <= MOST_VALUES:
        return False
    # Without its escapes, a string ends at the next quote.
    plain = line.replace(rb"\\", b"").replace(rb"\"", b"")
    values = 0
    for found in _VALUES.finditer(plain):
        values += plain[found.start()] != 0x22
        if values > MOST_VALUES:
            return True
    return False
