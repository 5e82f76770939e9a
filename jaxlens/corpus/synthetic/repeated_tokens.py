"""Repeated tokens: a block of random tokens of one frequency, and the same block again.

In the second block each token is bound to be copied from one lag before, whatever it is: what
differs between sequences is how frequent its tokens are and how far away the first block lies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int8

from jaxlens import designs
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import draws

logger = logging.getLogger("jaxlens")

VERSION = 1
"""Counts the changes of what is drawn for a seed."""


def fits(lag: int, room: int) -> bool:
    """Whether two blocks go into one sequence of the plan."""
    return 2 * lag <= room


def read(
    bins: Int8[np.ndarray, " vocab"], seed: int, room: int, skips: skip_log.SkipLog
) -> Iterator[documents.Document]:
    """Makes the sequences; each number of all bins and lags before the next number.

    So a corpus with a limit has as many of each. What is drawn depends on the seed, the bins and
    the sequence alone.

    Args:
        bins: Frequency bin of each token, -1 where it has none.
        seed: Any integer; its lowest 64 bits count.
        room: Tokens that a sequence of the plan has for them.
        skips: Counts the sequences that are made, and those that are left out.
    """
    members = [np.flatnonzero(bins == number) for number in range(designs.N_BINS)]
    cells = []
    for lag in designs.LAGS:
        if not fits(lag, room):
            logger.info(
                "lag %d is left out: its %d tokens do not fit a sequence, which holds %d",
                *(lag, 2 * lag, room),
            )
        for number, tokens in enumerate(members):
            if not fits(lag, room):
                _leave_out(number, lag, skip_log.LONGER_THAN_SEQUENCE, skips)
            elif not len(tokens):
                _leave_out(number, lag, skip_log.EMPTY_BIN, skips)
            else:
                cells.append((number, lag))
    for sequence in range(designs.SEQUENCES):
        for number, lag in cells:
            half = block(members[number], (seed, number, lag, sequence), lag)
            skips.documents += 1
            yield documents.Document(
                id=designs.repeats_id(number, lag, sequence),
                text="",
                location=_location(number, lag, sequence),
                ids=tuple(np.tile(half, 2).tolist()),
            )


def block(
    tokens: Int[np.ndarray, " n"], seeds: tuple[int, ...], size: int
) -> Int[np.ndarray, " size"]:
    """Random tokens, none of them again before all of them have been drawn.

    Args:
        tokens: What to draw from, at least one.
        seeds: What the draw depends on.
        size: How many to draw.
    """
    rounds = []
    for number, done in enumerate(range(0, size, len(tokens))):
        begin = draws.start(*seeds, number)
        count = min(size - done, len(tokens))
        rounds.append(tokens[draws.sample(begin, len(tokens), count)])
    return np.concatenate(rounds)


def _leave_out(number: int, lag: int, reason: str, skips: skip_log.SkipLog) -> None:
    for sequence in range(designs.SEQUENCES):
        skips.add(_location(number, lag, sequence), reason)


def _location(number: int, lag: int, sequence: int) -> skip_log.Location:
    """Line of a list of all sequences, in which those of one lag and bin follow each other."""
    cell = designs.LAGS.index(lag) * designs.N_BINS + number
    return skip_log.Location(0, 1 + cell * designs.SEQUENCES + sequence, designs.REPEATS)
