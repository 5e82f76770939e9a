"""Sampled rows: what is kept of each, and which are kept.

A row's key is a hash of its document and its place there. The rows with the lowest keys of all are
an even sample, the same whatever the shards and whoever computes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from jaxlens.tally import bins, hashing

FIELDS = (
    "key",
    "document",
    "offset",
    "group",
    "fold",
    "position",
    "token",
    "next_token",
    "copy_token",
    "piece",
    "match_length",
    "copied",
    "prev_distance",
    "prev_count",
    "rarity_next",
    "surprisal",
    "logp_next_last",
    "entropy_last",
    "logp_input_last",
)
"""Columns of a sampled row, before those of each layer."""

FIXED_FIELDS = (
    "rarity_next",
    "surprisal",
    "logp_next_last",
    "entropy_last",
    "logp_input_last",
    "kl_final_matched",
)
"""Those of them that are in fixed point."""

LAYER_FIELDS = ("rank_input", "rank_next", "kl_final_matched")
"""Columns that a sampled row has of each layer."""

NO_KEY = 2**63 - 1
"""Key of a line that holds no row."""

COPIES, CONTROLS, RESERVOIR = 4_096, 16_384, 16_384
"""Rows that are kept of copy events, of what may be compared with them, and of all."""

PROBABLE = (-4.0, -2.0, -1.0, -0.5, -0.125)
"""Final log-probabilities of the next token, nat; beyond each a control is twice as likely kept."""


def fields(n_layers: int) -> tuple[str, ...]:
    """Names of the columns of a sampled row."""
    return FIELDS + tuple(f"{name}.{layer}" for name in LAYER_FIELDS for layer in range(n_layers))


def unit(field: str) -> str:
    """Unit of a field: that of fixed point, or 1."""
    return "2**-16 nat" if field.partition(".")[0] in FIXED_FIELDS else "1"


def lowest(lines: Int64[np.ndarray, "line field"], count: int) -> Int64[np.ndarray, "count field"]:
    """The lines with the lowest keys, in their order; equal keys by the number of the document."""
    return lines[np.lexsort((lines[:, 1], lines[:, 0]))[:count]]


def key_of(
    document_hash: UInt64[np.ndarray, " n"], offset: Integer[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Random number of a token, from 0 to 2**63 - 2, by its document and its place there."""
    drawn = hashing.mix(hashing.mix(document_hash.astype(np.uint64)) + offset.astype(np.uint64))
    return np.minimum(drawn >> np.uint64(1), np.uint64(2**63 - 2)).astype(np.int64)


def favoured(key: Any, logp_next_last: Any) -> Any:
    """Keys of controls: what was as probable as copies mostly are is kept more often.

    Copies are probable in the end, and what is not copied seldom is; an even sample would hold too
    few to compare them with. Controls are matched on that probability, so it may decide which are
    kept.

    Args:
        key: See `key_of`.
        logp_next_last: Fixed-point log-probability.
    """
    for edge in PROBABLE:
        key = key >> (logp_next_last > round(edge * bins.ONE)).astype(key.dtype)
    return key
