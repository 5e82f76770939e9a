"""Natural copies: positions of the corpus whose next token their context has shown before.

The last earlier occurrence of a token was followed by the token that follows now, and at least the
two tokens before agree: ``copy_token == next_token`` and ``match_length >= 2`` in the columns of a
run. The source is the position of the copied token behind the earlier occurrence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxlens.corpus import plan, references, token_file
from jaxlens.corpus.synthetic import draws
from jaxlens.sweep.ablation import passages
from jaxlens.sweep.ablation.sequences import Material, Sequences
from jaxlens.tally import bins, hashing, sampling

MIN_MATCH = 2
"""Tokens before the copy that agree with those before its source."""

MIN_LENGTH = 32
"""Shortest sequence; contexts are padded to it and to its doubles, to compile few programs."""

AT_SOURCE = "copies whose source is the position that predicts them"


@dataclass(frozen=True)
class _Event:
    """A copy: the window, the position before it, and its source."""

    key: int
    window: passages.Window
    position: int
    source: int


def find(tokens: token_file.TokenFile, windows: plan.Plan, *, count: int, seed: int) -> Material:
    """Samples copies by hash.

    Args:
        tokens: Open token file.
        windows: Its plan.
        count: Copies at most; the lowest keys of all that were found.
        seed: Any integer; its lowest 64 bits count.
    """
    if not count:
        return Material((), {})
    start, at_source = draws.start(seed), 0
    found: list[_Event] = []
    for window in passages.sampled(tokens, windows, seed, passages.SEARCHED_TOKENS):
        events, excluded = _events(window, tokens.index, start)
        # Documents may be equal, and then so are the keys of their copies.
        found = sorted(found + events, key=lambda event: (event.key, event.window.document))[:count]
        at_source += excluded
    rarity = bins.frequency_bin(bins.rarity(tokens.index.token_counts))
    groups: dict[int, list[_Event]] = {}
    for event in found:
        length = max(MIN_LENGTH, 1 << event.position.bit_length())
        groups.setdefault(min(length, windows.length), []).append(event)
    fold = (tokens.index.document_hash & np.uint64(1)).astype(np.int64)
    made = (_sequences(length, groups[length], rarity, fold) for length in sorted(groups))
    return Material(tuple(made), {AT_SOURCE: at_source} if at_source else {})


def _events(
    window: passages.Window, index: token_file.Index, start: np.ndarray
) -> tuple[list[_Event], int]:
    """The copies of a window, and how many stand behind their own source."""
    token, one = window.tokens, np.zeros(len(window.tokens), np.int64)
    previous, _ = references.earlier(token, one)
    length = references.match_length(token, one, previous)
    following = np.append(token[1:], -1)
    is_copy = (references.copy_token(token, previous) == following) & (length >= MIN_MATCH)
    is_copy &= (following >= 0) & (np.arange(len(token)) >= window.skip)
    places = np.flatnonzero(is_copy)
    apart = places[previous[places] + 1 < places]
    digest = np.repeat(index.document_hash[window.document], len(apart))
    keys = hashing.mix(start ^ sampling.key_of(digest, window.offset + apart).astype(np.uint64))
    events = [
        _Event(int(key), window, int(p), int(previous[p]) + 1)
        for key, p in zip(keys, apart, strict=True)
    ]
    return events, len(places) - len(apart)


def _sequences(
    length: int,
    events: list[_Event],
    rarity: Int[np.ndarray, "fold vocab"],
    fold: Int[np.ndarray, " document"],
) -> Sequences:
    tokens = np.zeros((len(events), length), np.int64)
    for row, event in zip(tokens, events, strict=True):
        row[: event.position + 1] = event.window.tokens[: event.position + 1]
    target = np.array([event.position for event in events])
    source = np.array([event.source for event in events])
    copied = np.array([e.window.tokens[e.position + 1] for e in events])
    document = np.array([event.window.document for event in events])
    return Sequences(
        tokens=tokens,
        target=target[:, None],
        earlier=source[:, None] - 1,
        source=source[:, None],
        copied=copied[:, None],
        rarity=rarity[fold[document], copied],
        lag=target + 1 - source,
        cluster=document,
    )
