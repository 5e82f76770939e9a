"""The share of a process in a run: which of the missing shards it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jaxlens import config_values, errors
from jaxlens.store import shards
from jaxlens.sweep import claims
from jaxlens.sweep.job import Job
from jaxlens.sweep.progress import Count, Progress


def numbers(
    job: Job,
    missing: Sequence[int],
    rank: tuple[int, int],
    count: Count,
    progress: Progress | None,
) -> Iterable[int]:
    """The shards that this process computes; empty, or an iterator that decides late.

    Args:
        job: Sweep; its ``shard`` says whether shards of others are taken over.
        missing: Shards that the run lacks.
        rank: See `ranks.of`.
        count: Hears of what others commit.
        progress: Is told how much there is.
    """
    index, total = rank
    takes_over = job.config.shard == config_values.AUTO
    every = range(job.plan.n_shards) if takes_over else range(index, job.plan.n_shards, total)
    mine = [shard for shard in missing if takes_over or shard % total == index]
    if mine and progress is not None:
        whole = _tokens(job, every)
        progress.begin(whole, whole - _tokens(job, mine))
    return _claimed(job, mine, rank, count) if mine and takes_over else mine


def is_committed(job: Job, shard: int) -> bool:
    """Whether a shard is there, by its record and size."""
    job.storage.refresh_shard(shard)
    try:
        shards.check(job.out, shard, job.spec_hash, "fast")
    except (errors.MissingError, errors.DataError):
        return False
    return True


def _claimed(
    job: Job, missing: Sequence[int], rank: tuple[int, int], count: Count
) -> Iterator[int]:
    """Shards by `claims.claim`; what others have committed is counted where it is seen."""
    unseen = set(missing)

    def see(shard: int) -> bool:
        there = is_committed(job, shard)
        if there and shard in unseen:
            unseen.remove(shard)
            count.found(shard)
        return there

    def look_again() -> list[int]:
        # Names are enough: each shard is looked at again before it is computed.
        job.storage.refresh()
        now = shards.absent_shards(job.out, job.plan.n_shards)
        for shard in unseen.difference(now):
            count.found(shard)
        unseen.intersection_update(now)
        return now

    for shard in claims.claim(missing, *rank, see, look_again):
        unseen.discard(shard)  # counted when it is committed here
        yield shard


def _tokens(job: Job, numbers: Iterable[int]) -> int:
    return sum(stop - start for start, stop in map(job.plan.tokens_of_shard, numbers))
