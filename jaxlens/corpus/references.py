"""The tokens that a position is compared with, and what its context repeats.

Everything is a function of flat arrays of real tokens, in token-file order; ``window`` numbers
the context that each token belongs to and never decreases. The definitions are in the
documentation, "Recorded quantities".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlens import errors, schema
from jaxlens.tally import hashing

if TYPE_CHECKING:
    from jaxlens import types

FOREIGN_TRIES = 8
"""Draws before a position is left without a foreign token."""

MATCH_LIMIT = 255
"""Longest common suffix that is told apart from longer ones."""

_PIECES = np.array(
    [schema.PIECE_WHOLE, schema.PIECE_FIRST, schema.PIECE_LAST, schema.PIECE_MIDDLE], np.uint8
)


def document_of(
    document_start: Int[np.ndarray, " documents_plus_1"], index: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Number of the document that each token of the file belongs to."""
    return np.searchsorted(document_start, index, side="right") - 1


def foreign_index(
    index: Int[np.ndarray, " n"],
    document: Int[np.ndarray, " n"],
    document_start: Int[np.ndarray, " documents_plus_1"],
    seed: int,
) -> Int[np.ndarray, " n"]:
    """Place of a token drawn for each position from another document.

    It depends on the seed, the token's own index and the file, on nothing else.

    Args:
        index: Place of each position in the token file.
        document: Document of each position.
        document_start: First token of each document, and the number of tokens.
        seed: Any integer; its lowest 64 bits count.

    Returns:
        Place in the token file, -1 where ``FOREIGN_TRIES`` draws stayed in the document.
    """
    start = hashing.mix(np.full(1, seed & (2**64 - 1), np.uint64))
    own = hashing.mix(start ^ index.astype(np.uint64))
    total = np.uint64(document_start[-1])
    drawn = np.full(len(index), -1, np.int64)
    left = np.arange(len(index))
    for attempt in range(FOREIGN_TRIES):
        candidate = (hashing.mix(own[left] + np.uint64(attempt)) % total).astype(np.int64)
        is_foreign = document_of(document_start, candidate) != document[left]
        drawn[left[is_foreign]] = candidate[is_foreign]
        left = left[~is_foreign]
    return drawn


def earlier(
    token: Int[np.ndarray, " n"], window: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The last earlier occurrence of each token in its window.

    Returns:
        Its flat index (-1 where there is none), and the number of earlier occurrences.
    """
    size = len(token)
    key = window.astype(np.int64) * (int(token.max(initial=0)) + 1) + token
    order = np.argsort(key, kind="stable")
    fresh = np.ones(size, bool)
    fresh[1:] = key[order[1:]] != key[order[:-1]]
    rank = np.arange(size)
    previous = np.full(size, -1, np.int64)
    previous[order[1:]] = np.where(fresh[1:], -1, order[:-1])
    count = np.zeros(size, np.int64)
    count[order] = rank - np.maximum.accumulate(np.where(fresh, rank, 0))
    return previous, count


def copy_token(
    token: Int[np.ndarray, " n"], previous: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The token after the last earlier occurrence, -1 where there is none."""
    return np.where(previous < 0, -1, token[previous + 1])


def match_length(
    token: Int[np.ndarray, " n"],
    window: Int[np.ndarray, " n"],
    previous: Int[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Length of the common suffix of the context at a position and at its last occurrence.

    Returns:
        At least 1 where there is an earlier occurrence, 0 where not; at most ``MATCH_LIMIT``.
    """
    rank = np.arange(len(token))
    # Where the token before was matched at the same distance, its match only grows by one;
    # so the search goes back only from the first token of each such run.
    runs = np.zeros(len(token), bool)
    runs[1:] = previous[1:] == previous[:-1] + 1
    length = (previous >= 0).astype(np.int64)
    alive = rank[(previous >= 0) & ~runs]
    for back in range(1, MATCH_LIMIT):
        source = previous[alive] - back
        alive, source = alive[source >= 0], source[source >= 0]
        same = (window[source] == window[alive]) & (token[source] == token[alive - back])
        alive = alive[same]
        if not alive.size:
            break
        length[alive] += 1
    head = np.maximum.accumulate(np.where(runs, 0, rank))
    return np.minimum(length[head] + rank - head, MATCH_LIMIT)


def copied(
    token: Int[np.ndarray, " n"],
    following: Int[np.ndarray, " n"],
    previous: Int[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """Whether each token is copied later in its window.

    It is where a later token of the window has its last earlier occurrence one before it and is
    followed by the same token, which may be the first beyond the window.

    Args:
        token: Tokens of windows.
        following: The next token of the document, -1 where there is none.
        previous: See `earlier`.
    """
    is_copied = np.zeros(len(token), bool)
    again = (previous >= 0) & (copy_token(token, previous) == following)
    is_copied[previous[again] + 1] = True
    return is_copied


def piece(
    token: Int[np.ndarray, " n"],
    first: Bool[np.ndarray, " n"],
    tables: tuple[Bool[np.ndarray, " vocab"], Bool[np.ndarray, " vocab"]] | None,
) -> Int[np.ndarray, " n"]:
    """Whether each token is a whole word or which part of one (codes in ``schema``).

    Args:
        token: A run of the token file. Its two ends are taken for ends of a word, so give one
            token more on either side where there is one.
        first: Whether the token begins a document.
        tables: Whether each token of the vocabulary starts, and ends, with a letter or digit;
            None where there is no tokenizer.
    """
    if tables is None:
        return np.full(len(token), schema.PIECE_UNKNOWN, np.uint8)
    starts, ends = tables
    continues = np.zeros(len(token) + 1, np.int64)
    continues[1:-1] = starts[token[1:]] & ends[token[:-1]] & ~first[1:]
    return _PIECES[2 * continues[:-1] + continues[1:]]


def in_memory(tokens: Any, mask: Any = None, seed: int = 0) -> types.References:
    """References of plain arrays, where each line is a document of its own.

    Args:
        tokens: ``[batch, position]`` token ids.
        mask: ``[batch, position]``, True where the token is real; all of them by default.
        seed: Seed of the foreign tokens, drawn from the other lines.

    Returns:
        NumPy arrays, -1 where there is no such token.

    Raises:
        ConfigError: The shapes do not fit, the padding is not on the right, or an id is negative.
    """
    from jaxlens import types

    grid = np.asarray(tokens)
    if grid.ndim != 2 or not np.issubdtype(grid.dtype, np.integer):
        raise errors.ConfigError(
            f"tokens are {grid.dtype} of shape {grid.shape}", "give integers [batch, position]"
        )
    real: Any = np.ones(grid.shape, bool) if mask is None else np.asarray(mask, bool)
    if real.shape != grid.shape:
        raise errors.ConfigError(
            f"mask has shape {real.shape}, tokens {grid.shape}", "give one value a token"
        )
    if np.any(real[:, 1:] & ~real[:, :-1]):
        raise errors.ConfigError(
            "mask has real tokens after padding",
            "pad on the right: GPT-2's positions are learned, and count from the line's start",
        )
    if np.any(real & (grid < 0)):
        raise errors.ConfigError("tokens are negative where mask is True", "mask the padding")
    return types.References(**_references(grid.astype(np.int32), real, seed), mask=real)


def _references(
    grid: Int[np.ndarray, "batch position"], real: Bool[np.ndarray, "batch position"], seed: int
) -> dict[str, Any]:
    token = grid[real]
    line = np.nonzero(real)[0]
    start = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    following = np.append(token[1:], -1)
    following[start[1:][start[1:] > 0] - 1] = -1
    previous, _ = earlier(token, line)
    drawn = foreign_index(np.arange(len(token)), line, start, seed)
    flat = {
        "input": token,
        "next": following,
        "foreign": np.where(drawn < 0, -1, token[drawn]),
        "copy": copy_token(token, previous),
    }
    return {name: scatter(values, real) for name, values in flat.items()}


def scatter(
    values: Int[np.ndarray, " n"], real: Bool[np.ndarray, "batch position"]
) -> Int[np.ndarray, "batch position"]:
    """Puts flat values, line by line, where the mask is True; -1 elsewhere."""
    grid = np.full(real.shape, -1, np.int32)
    grid[real] = values
    return grid
