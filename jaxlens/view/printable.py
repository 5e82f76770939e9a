"""Tokens and texts as they can be shown: nothing invisible, nothing that a terminal obeys.

A token is bytes from a stranger's tokenizer: part of a character, an escape sequence, an override
of the direction of writing, ten thousand letters. Whatever it holds, its picture is one line of
printable characters.
"""

from __future__ import annotations

import unicodedata

SIGNS = {"\n": "↵", "\t": "⇥", " ": "·", "\r": "␍"}
"""What stands for white space that matters."""

LONGEST = 200
"""Characters of a token that are shown; the rest is counted."""

# Letters, marks, numbers, punctuation, symbols; a space is dealt with before.
_SHOWN = frozenset("LMNPS")


def token(raw: bytes, longest: int = LONGEST) -> str:
    r"""A token on one line; spaces are dots, bytes that are no UTF-8 ``\xe2``.

    Args:
        raw: What the token stands for.
        longest: Characters to show before ``…``.
    """
    # Cut before anything looks at all of it; a character has at most four bytes.
    text = raw[: 4 * longest + 4].decode("utf-8", "backslashreplace")
    shown = "".join(SIGNS.get(c) or _character(c) for c in text[:longest])
    more = len(raw) > 4 * longest + 4 or len(text) > longest
    return f"{shown}…({len(raw):,} bytes)" if more else shown


def line(text: str) -> str:
    """A text on one line; spaces stay, ends of lines are ↵."""
    return "".join(" " if c == " " else SIGNS.get(c) or _character(c) for c in text)


def lines(text: str) -> str:
    """A text whose controls, marks of direction and other invisible characters are numbers.

    Spaces of every width and ends of lines stay; see `line` for a text on one line.
    """
    return "".join(number(c) if _hides(c) else c for c in text)


def _hides(c: str) -> bool:
    return c in "\u2028\u2029" or (c != "\n" and unicodedata.category(c)[0] == "C")


def _character(c: str) -> str:
    """Itself, or its number where it is invisible or not a character."""
    if unicodedata.category(c)[0] in _SHOWN and c not in "\u2800\u3164\uffa0\u115f\u1160":
        return c
    return number(c)


def number(c: str) -> str:
    """A character by its number, as Python writes it."""
    code = ord(c)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
