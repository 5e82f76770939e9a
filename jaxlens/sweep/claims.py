"""In which order a worker takes shards where several share a run and take over from each other.

Workers do not talk: all that one knows of the others is what they have committed. It takes its own
shards first, then those that others lack, at random. A shard that two workers compute costs time
and no more: the first to commit it wins.

At random, since workers that finish early would otherwise meet at the same shards. In a simulation
of 300 workers of 60 shards each, some slow, all now and then preempted, a random order takes 1.05
times as long as an ideal one and computes 6 % of the shards twice; taking from the far end of
another's list takes 1.4 times as long and computes 45 % twice. `tests/sweep/test_claims.py` holds
the simulation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

MISSES = 4
"""Shards in a row that turn out to be committed, after which the view of the run is out of date."""


def claim(
    missing: Iterable[int],
    index: int,
    total: int,
    is_committed: Callable[[int], bool],
    look_again: Callable[[], Iterable[int]],
) -> Iterator[int]:
    """The shards that a worker computes, each decided when it is asked for.

    Args:
        missing: Shards that the run lacked when the worker began.
        index: Number of the worker.
        total: Number of workers; worker I has the shards whose number leaves the remainder I.
        is_committed: Whether somebody has committed a shard meanwhile; asked shortly before each.
        look_again: Shards that the run lacks now.

    Yields:
        Shards, none of them twice, until the run lacks only what this worker has taken.
    """
    taken: set[int] = set()
    for shard in missing:
        if shard % total == index and not is_committed(shard):
            taken.add(shard)
            yield shard
    chance = random.Random(index)
    while left := [shard for shard in look_again() if shard not in taken]:
        chance.shuffle(left)
        misses = 0
        while left and misses < MISSES:
            shard = left.pop()
            if is_committed(shard):
                misses += 1
            else:
                misses = 0
                taken.add(shard)
                yield shard
