"""Tokens and names of documents as text that cannot hurt whoever displays it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, bidirectional marks, line separators, and what no font can show."""

_FORMULA = "=+-@"


def escape(raw: bytes, spreadsheet: bool = False) -> str:
    r"""Bytes as printable text, reversibly: different bytes have different texts.

    Printable characters stay as they are. A backslash, a line end, a return and a tab are ``\\``,
    ``\n``, ``\r``, ``\t``; ``\xNN`` is a byte that is no UTF-8 (a token may hold part of a
    character) or an ASCII control; ``\uNNNN`` and ``\UNNNNNNNN`` are other characters that a
    screen does not show, among them those that change the direction of text.

    Args:
        raw: UTF-8, or nearly.
        spreadsheet: Whether a first ``=``, ``+``, ``-`` or ``@``, with which spreadsheets begin a
            formula, becomes ``\xNN`` too.
    """
    escaped = "".join(_pieces(raw))
    if spreadsheet and escaped[:1] in _FORMULA and escaped:
        return f"\\x{ord(escaped[0]):02x}{escaped[1:]}"
    return escaped


def unescape(text: str) -> bytes:
    """The bytes that `escape` was given."""
    raw, at = bytearray(), 0
    widths = {"x": 2, "u": 4, "U": 8}
    plain = {escaped[1]: character for character, escaped in _NAMED.items()}
    while at < len(text):
        if text[at] != "\\":
            raw += text[at].encode()
            at += 1
            continue
        kind, at = text[at + 1], at + 2
        if kind in plain:
            raw += plain[kind].encode()
            continue
        number = int(text[at : at + widths[kind]], 16)
        raw += bytes([number]) if kind == "x" else chr(number).encode()
        at += widths[kind]
    return bytes(raw)


def _pieces(raw: bytes) -> Iterator[str]:
    # Bytes that are no UTF-8 come out as lone surrogates, which UTF-8 itself cannot hold.
    for character in raw.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if character in _NAMED:
            yield _NAMED[character]
        elif 0xDC80 <= code <= 0xDCFF:
            yield f"\\x{code - 0xDC00:02x}"
        elif unicodedata.category(character) not in _HIDDEN:
            yield character
        elif code < 0x80:
            yield f"\\x{code:02x}"
        else:
            yield f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
