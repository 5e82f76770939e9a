"""Bins and fixed point: how values become the integers that are counted and summed.

All of it is tables and integer arithmetic. A float is rounded once, to a multiple of 2**-16; a
logarithm of an integer comes from a table that is computed in float64. So the same rows give the
same counts on a device and offline.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Int32, UInt64

from jaxlens.tally import hashing

FIXED_POINT_BITS = 16
"""Sums are int64 multiples of 2**-16; a value is rounded once, before it is added."""

ONE = 1 << FIXED_POINT_BITS

FIXED_POINT_LIMIT = 2.0**14
"""A larger magnitude saturates and is counted."""

STREAM_LIMIT = 2.0**28
"""The same of norms and projections of the residual stream: some models have norms of 10**5."""

LN_RANK_EDGES = np.linspace(0.0, 12.8, 129, dtype=np.float32)
"""Edges of the 128 bins of ln rank; rank 1 is bin 0, ranks to 362,217 have a bin."""

RANK_EDGES = LN_RANK_EDGES[::2]
"""Edges of the 64 bins of ln rank of the study, 0.2 wide: of each two bins one."""

FREQUENCY_BINS = 16
"""Bins of rarity, 1 nat wide; the last holds what is rarer."""

FINE_BINS = 32
"""Bins of rarity, and of surprisal, 0.5 nat wide; the last holds what is beyond."""

LOG_EDGES = (1e-5 * np.exp(np.log(1.02) * np.arange(799, dtype=np.float64))).astype(np.float32)
"""Edges between the 800 bins of a divergence or an entropy, 2 % apart, from 1e-5 to 73 nats."""

JUMP_BINS = 64
"""Bins of a share from 0 to 1."""

GROUPS = 256
"""Random groups of documents, which stand for clusters: enough for intervals, few to keep."""

STRATA = tuple(
    f"{piece}, {occurrence}"
    for occurrence in ("first occurrence", "later occurrence")
    for piece in ("whole word", "first piece", "middle piece", "last piece")
)
"""Classes of positions: what the token is of a word, and whether the context has seen it."""

MAX_LN = 2**16
"""Greatest integer of `ln_table`."""


def ln_table(largest: int) -> Int32[np.ndarray, " n"]:
    """Fixed-point ln of 0 .. largest, computed once in float64; entry 0 is 0."""
    numbers = np.arange(largest + 1, dtype=np.float64)
    numbers[0] = 1.0
    return np.rint(np.log(numbers) * ONE).astype(np.int32)


def ln_rank_bins(vocab_size: int) -> Int32[np.ndarray, " rank"]:
    """Histogram bin of ranks 0 .. vocab_size; entry 0 (no rank) is -1."""
    ranks = np.arange(vocab_size + 1, dtype=np.float64)
    ranks[0] = 1.0
    bins = np.searchsorted(LN_RANK_EDGES, np.log(ranks).astype(np.float32), side="right") - 1
    bins = np.minimum(bins, len(LN_RANK_EDGES) - 2).astype(np.int32)
    bins[0] = -1
    return bins


def rarity(counts: Int[np.ndarray, "fold vocab"]) -> Float[np.ndarray, "fold vocab"]:
    """Rarity in nats, float64, of tokens in documents of each fold.

    ``-ln((c + 1/2) / (N + V/2))`` of the counts ``c`` in the *other* fold, so that a token's own
    document has no part in it.
    """
    other = np.asarray(counts, np.float64)[::-1]
    return -np.log((other + 0.5) / (other.sum(-1, keepdims=True) + other.shape[-1] / 2))


def rarity_table(counts: Int[np.ndarray, "fold vocab"]) -> Int32[np.ndarray, "fold vocab"]:
    """`rarity` in fixed point."""
    return np.rint(rarity(counts) * ONE).astype(np.int32)


def type_rarity(counts: Int[np.ndarray, "fold vocab"]) -> Float[np.ndarray, " vocab"]:
    """Rarity in nats, float64, of token types: by the counts of both folds together."""
    total = np.asarray(counts).sum(0, keepdims=True)
    return rarity(np.concatenate([total, total]))[0]


def type_rarity_table(counts: Int[np.ndarray, "fold vocab"]) -> Int32[np.ndarray, " vocab"]:
    """`type_rarity` in fixed point."""
    return np.rint(type_rarity(counts) * ONE).astype(np.int32)


def frequency_bin(rarity: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Bin of rarity in nats, of `FREQUENCY_BINS`."""
    return np.clip(np.floor(rarity), 0, FREQUENCY_BINS - 1).astype(np.int64)


def group_of(document_hash: UInt64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """Group of documents, by a hash of their hash: not by the bit that is their fold."""
    return (hashing.mix(document_hash.astype(np.uint64)) % np.uint64(GROUPS)).astype(np.int32)
