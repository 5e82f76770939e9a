"""Repeated blocks: random tokens of one bin of rarity, and the same tokens again.

Nothing but the first block announces the tokens of the second, so what a model gains on them it
reads there. The first token of the second block is announced by nothing and is no target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens import designs
from jaxlens.corpus.synthetic import repeated_tokens
from jaxlens.sweep.ablation.sequences import Material, Sequences
from jaxlens.tally import bins

TOO_LONG = "lags whose two blocks are longer than a sequence"
TOO_FEW = "bins of rarity and lags with fewer tokens than the lag"


def make(
    rarity: Float[np.ndarray, " vocab"],
    usable: Bool[np.ndarray, " vocab"],
    *,
    count: int,
    seed: int,
    length: int,
    bos: int | None = None,
) -> Material:
    """Draws sequences of all bins and lags in turn, so that each has as many as the next.

    Args:
        rarity: Of each token, in nats.
        usable: Tokens that may be drawn.
        count: Number of sequences.
        seed: Any integer; its lowest 64 bits count.
        length: Tokens of a sequence at most.
        bos: Token before the blocks; None for none.
    """
    room = length - (bos is not None)
    lags = [lag for lag in designs.LAGS if repeated_tokens.fits(lag, room)]
    members = _members(rarity, usable)
    cells = [(lag, b) for b, tokens in members.items() for lag in lags if len(tokens) >= lag]
    drawn: dict[int, list[tuple[int, int, np.ndarray]]] = {lag: [] for lag in lags}
    for i in range(count if cells else 0):
        (lag, number), turn = cells[i % len(cells)], i // len(cells)
        block = repeated_tokens.block(members[number], (seed, number, lag, turn), lag)
        drawn[lag].append((i, number, block))
    groups = tuple(_sequences(lag, rows, bos) for lag, rows in drawn.items() if rows)
    left_out = {
        TOO_LONG: len(designs.LAGS) - len(lags),
        TOO_FEW: len(lags) * len(members) - len(cells),
    }
    return Material(groups, {reason: n for reason, n in left_out.items() if n})


def _members(
    rarity: Float[np.ndarray, " vocab"], usable: Bool[np.ndarray, " vocab"]
) -> dict[int, Int[np.ndarray, " n"]]:
    """Tokens of each bin that has any."""
    number = bins.frequency_bin(rarity)
    members = {b: np.flatnonzero(usable & (number == b)) for b in range(bins.FREQUENCY_BINS)}
    return {b: tokens for b, tokens in members.items() if len(tokens)}


def _sequences(lag: int, rows: Sequence[tuple[int, int, np.ndarray]], bos: int | None) -> Sequences:
    number, rarity, blocks = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    tokens = np.tile(blocks, 2)
    first = 0 if bos is None else 1
    if bos is not None:
        tokens = np.column_stack([np.full(len(tokens), bos), tokens])
    # Without BOS the first token stands at the start of the context, whose stream is unlike any
    # other; it is the one that is no target.
    source = np.broadcast_to(first + np.arange(1, lag), (len(rows), lag - 1))
    return Sequences(
        tokens=tokens,
        target=source + lag - 1,
        earlier=source - 1,
        source=source,
        copied=blocks[:, 1:],
        rarity=rarity,
        lag=np.full(len(rows), lag),
        cluster=number,
    )
