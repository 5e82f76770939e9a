"""Text in another encoding than UTF-8: recognised by its first bytes, and how to convert it."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from jaxlens.files import commands

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

_NOT_WINDOWS_1252 = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that are not characters of Windows-1252."""

_MIN_ZEROS = 8


class NotUtf8(NamedTuple):
    """What is wrong with a text, and what to do about it.

    Attributes:
        what: Follows the name of the file in a message.
        hint: The command that converts it.
    """

    what: str
    hint: str


def check(path: str, head: bytes) -> NotUtf8 | None:
    """What is wrong with the encoding of a text; None where it is UTF-8, or no text.

    Args:
        path: File, for the command.
        head: Its first bytes, decompressed.
    """
    if (name := _wide(head)) is not None:
        return NotUtf8(f"is {name}, not UTF-8", f"convert it: {_to_utf8(path, name)}")
    if b"\0" in head:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        latin = any(byte in head for byte in _NOT_WINDOWS_1252)
        command = _to_utf8(path, "ISO-8859-1" if latin else "WINDOWS-1252")
        line = head.count(b"\n", 0, error.start) + 1
        return NotUtf8(
            f"is not UTF-8: line {line} has the byte 0x{head[error.start]:02x}",
            f"if it is Western European, convert it: {command}",
        )
    return None


def hint(path: str, head: bytes) -> str:
    """How to convert a text to UTF-8; in general terms where its encoding is not recognised."""
    problem = check(path, head)
    return problem.hint if problem else "convert it to UTF-8"


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark, or by the zeros between ASCII characters."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[::2], head[1::2]
    for zeros, others, name in ((odd, even, "UTF-16LE"), (even, odd, "UTF-16BE")):
        if len(zeros) >= _MIN_ZEROS and 2 * zeros.count(0) > len(zeros) and others.count(0) == 0:
            return name
    return None


def _to_utf8(path: str, encoding: str) -> str:
    return commands.convert(path, f"iconv -f {encoding} -t UTF-8")
