"""Where a text reads as prose: an excerpt shows sentences rather than tables, code or fragments.

Every token has a worth by what it is made of, and the window with the greatest sum wins; it begins
where a sentence or a document begins, if any such place is among the tokens that are looked at.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Shaped

MAX_TOKENS = 1 << 18
"""Tokens that are looked at, from the beginning of the corpus."""

_CANDIDATES = 64
"""Best windows of which the one with the fewest repetitions is taken."""

_ENDS = (".", "!", "?", '."', '!"', '?"', ".\u201d", "!\u201d", "?\u201d")
_PUNCTUATION = frozenset(",.;:!?'\"-()") | {"\u2019", "\u2018", "\u201c", "\u201d", "\u2014"}


def place(
    ids: Int[np.ndarray, " token"],
    starts: Int[np.ndarray, " document_plus_1"],
    strings: Shaped[np.ndarray, " vocab"],
    length: int,
) -> int | None:
    """First token of the passage that reads most like prose.

    Args:
        ids: The first tokens of a corpus.
        starts: First token of each document, and the number of tokens of the corpus.
        strings: Bytes of each token of the vocabulary.
        length: Tokens of the passage, which lies in one document.

    Returns:
        None where no document is long enough.
    """
    if len(ids) < length:
        return None
    whole = _in_one_document(len(ids), starts, length)
    if not whole.any():
        return None
    used = np.unique(ids)
    texts = {int(i): bytes(strings[i]).decode("utf-8", "replace") for i in used}
    worth = np.zeros(len(strings))
    worth[used] = [_worth(texts[int(i)]) for i in used]
    total = np.concatenate([[0.0], np.cumsum(worth[ids])])
    sums = total[length:] - total[:-length]
    candidates = whole & _begins(ids, starts, texts)[: len(whole)]
    candidates = candidates if candidates.any() else whole
    sums = np.where(candidates, sums, -np.inf)
    best = np.argsort(-sums, kind="stable")[:_CANDIDATES]
    best = best[np.isfinite(sums[best])]
    distinct = [sums[i] + len(np.unique(ids[i : i + length])) / 2 for i in best]
    return int(best[int(np.argmax(distinct))])


def _in_one_document(
    n: int, starts: Int[np.ndarray, " document_plus_1"], length: int
) -> Bool[np.ndarray, " window"]:
    first = np.arange(n - length + 1)
    document = np.searchsorted(starts, first, side="right") - 1
    return first + length <= starts[document + 1]


def _begins(
    ids: Int[np.ndarray, " token"],
    starts: Int[np.ndarray, " document_plus_1"],
    texts: dict[int, str],
) -> Bool[np.ndarray, " token"]:
    """Whether a sentence begins at a token, by the end of the last one and a capital."""
    capital = {i: text.lstrip()[:1].isupper() for i, text in texts.items()}
    ends = {i: text.rstrip().endswith(_ENDS) for i, text in texts.items()}
    begins = np.array([capital[int(i)] for i in ids])
    before = np.array([True, *(ends[int(i)] for i in ids[:-1])])
    before[starts[starts < len(ids)]] = True
    return begins & before


def _worth(text: str) -> float:
    """A word is 1, a piece of one or a mark 0.5; digits, symbols and line ends count against."""
    bare = text.strip(" ")
    if not bare:
        return -1.0 if len(text) > 1 else 0.0
    if bare.isalpha():
        ordinary = bare.islower() or bare.istitle() or len(bare) == 1 or not bare.isascii()
        return (1.0 if text[0] == " " else 0.5) if ordinary else 0.0
    return 0.5 if bare in _PUNCTUATION else -1.0
