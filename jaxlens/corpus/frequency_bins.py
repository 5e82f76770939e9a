"""Frequency bins of the vocabulary: from counts, or else from the order in which it was learned.

Bins have equal widths in the logarithm, since that is how the study measures rarity. Where no
counts are given, ids stand for them: a vocabulary of byte pairs is learned by merging the most
frequent pair first, so ids rise as frequency falls, and by Zipf's law frequency is about the
inverse of the rank, so equal widths of log id are about equal widths of log frequency. (Equal
numbers of tokens would put half of the bins into the last octave.) Counts of the packaged text
are no substitute: most tokens of GPT-2 never occur in it.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int, Int8

from jaxlens import designs, errors


def by_id(token_bytes: Sequence[bytes], special: Collection[int]) -> Int8[np.ndarray, " vocab"]:
    """Bins of equal width in log id, 0 for the last ids.

    Left out are special tokens, ids without a string, and strings of one byte: they are the
    alphabet, which was not merged and lies in the order of its bytes.

    Args:
        token_bytes: Bytes of each token, see ``vocabulary.strings``.
        special: Ids of tokens that no merge made.

    Returns:
        Bin of each token, -1 where it has none.

    Raises:
        ConfigError: No token has one.
    """
    merged = np.array([len(token) > 1 for token in token_bytes], bool)
    # Counted from 1, as no logarithm of 0 is wanted.
    level = _levels(np.arange(1, len(token_bytes) + 1), _without(merged, special))
    return np.where(level < 0, -1, designs.N_BINS - 1 - level).astype(np.int8)


def by_count(
    counts: Int[np.ndarray, " vocab"], token_bytes: Sequence[bytes], special: Collection[int]
) -> Int8[np.ndarray, " vocab"]:
    """Bins of equal width in log count, of the tokens that occur; see ``by_id``."""
    known = np.array([bool(token) for token in token_bytes], bool)
    return _levels(counts, _without(known & (counts > 0), special)).astype(np.int8)


def _without(
    usable: Bool[np.ndarray, " vocab"], special: Collection[int]
) -> Bool[np.ndarray, " vocab"]:
    usable[[number for number in special if number < len(usable)]] = False
    return usable


def _levels(
    value: Int[np.ndarray, " vocab"], usable: Bool[np.ndarray, " vocab"]
) -> Int[np.ndarray, " vocab"]:
    """Equal widths between the logarithms of the least and the greatest value."""
    if not usable.any():
        raise errors.ConfigError(
            "no token of the vocabulary has a frequency", "give counts with corpus.counts"
        )
    low, high = int(value[usable].min()), int(value[usable].max())
    # The edge of bin b is low * (high / low) ** (b / n): with whole numbers, exact everywhere.
    n = designs.N_BINS
    whole = range(low, high + 1)
    edges = [
        low + bisect.bisect_left(whole, low ** (n - b) * high**b, key=lambda v: v**n)
        for b in range(1, n)
    ]
    return np.where(usable, np.searchsorted(np.array(edges), value, side="right"), -1)
