"""Whether a word that follows a text begins with a space."""

from __future__ import annotations

import unicodedata
from typing import Literal

Space = Literal["auto", "never", "always"]

# After these the next word begins without a space; after " only where it opens a quotation.
_OPEN = "([{<\u201c\u2018\u00ab\u00bf\u00a1/-_$#@\\="

# Scripts that put no space between words, as the names of their characters begin.
_UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA ", "BOPOMOFO "),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ", "YI ", "TAI ", "NEW TAI ", "JAVANESE "),
    *("BALINESE ", "NUSHU ", "TANGUT "),
)


def begins_with_space(text: str, before: str, space: Space) -> bool:
    r"""Whether a space is to be put before an answer.

    Args:
        text: The answer as it was given.
        before: How the prompt ends.
        space: ``never``; ``always``, but before white space; ``auto``: where the answer begins
            with a letter or a digit and the prompt does not end with white space, an opening
            bracket or quotation mark, or one of ``/ - _ $ # @ = \``; not where the answer begins,
            or the prompt ends, in a script without spaces between words, as Chinese and Thai, or
            the prompt ends with a full-width sign.
    """
    if space == "never" or not text or text[0].isspace():
        return False
    if space == "always":
        return True
    if not text[0].isalnum() or not before or before[-1].isspace():
        return False
    if _is_unspaced(text[0]) or _is_unspaced(before[-1]) or _is_wide_sign(before[-1]):
        return False
    if before[-1] in '"`':
        return before.count(before[-1]) % 2 == 0
    return before[-1] not in _OPEN


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)


def _is_wide_sign(character: str) -> bool:
    """Whether it is punctuation that has its space in itself, as the ideographic full stop."""
    wide = unicodedata.east_asian_width(character) in "WF"
    return wide and unicodedata.category(character)[0] == "P"
