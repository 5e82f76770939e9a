"""Computing shards: steps are dispatched to workers, fetched later, and joined into images."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

from jaxlens import schema
from jaxlens.corpus import token_file
from jaxlens.store import records
from jaxlens.store.hdf5 import images
from jaxlens.store.hdf5.buffers import Buffer
from jaxlens.sweep import preemption
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker
from jaxlens.tally import update

T = TypeVar("T")

PUBLISH_SECONDS = 2.0
"""Generous time to publish a shard, of at most 256 MiB, before the deadline of a stop."""


@dataclass(frozen=True)
class Shard:
    """All that a shard will hold.

    Attributes:
        number: In the plan.
        columns: Token columns of each step, by name.
        rows: Rows of each step in their stored types, by name.
        totals: Its tallies.
    """

    number: int
    columns: list[dict[str, np.ndarray]]
    rows: list[dict[str, np.ndarray]]
    totals: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Fetchable:
    """A dispatched step: arrays that the device may still be working on."""

    shard: int
    columns: dict[str, np.ndarray]
    rows: dict[str, jax.Array]
    totals: list[update.Totals] | None  # of each device, with the last step of its shard


def shards(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    workers: Sequence[Worker],
    stop: preemption.StopRequest,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Shard]:
    """Computes shards; ends early, between shards, where a stop is requested.

    Args:
        job: Sweep.
        tokens: Its token file.
        numbers: Shards.
        workers: Of `workers.compile_workers`; they take turns.
        stop: Checked before every step; a shard that cannot be finished in time is dropped.
        advance: Receives the number of tokens of every step.
    """
    columns: list[dict[str, np.ndarray]] = []
    rows: list[dict[str, np.ndarray]] = []
    for item in prefetch(_dispatch(job, tokens, numbers, workers, stop), steps_ahead(workers)):
        count = len(item.columns["token"])
        columns.append(item.columns)
        rows.append({name: np.asarray(value)[:count] for name, value in item.rows.items()})
        advance(count)
        if item.totals is not None:
            yield Shard(item.shard, columns, rows, update.merge(jax.device_get(item.totals)))
            columns, rows = [], []


def _dispatch(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    workers: Sequence[Worker],
    stop: preemption.StopRequest,
) -> Iterator[_Fetchable]:
    began, done = time.monotonic(), 0
    for shard in numbers:
        if stop.requested:
            return
        totals: dict[Worker, update.Totals] = {}
        steps = job.plan.steps_of(shard)
        for number in steps:
            # Those that wait to be fetched were dispatched before it.
            left = steps[-1] - number + 1 + steps_ahead(workers)
            pace = (time.monotonic() - began) / max(1, done)
            if stop.requested and not stop.has_time_for(left * pace + PUBLISH_SECONDS):
                return
            batch, columns = job.batch(number, tokens)
            worker = workers[done % len(workers)]
            so_far = totals.get(worker) or worker.zero_totals()
            rows, totals[worker] = worker.run(batch, job.tally_columns(columns), so_far)
            done += 1
            last = list(totals.values()) if number == steps[-1] else None
            yield _Fetchable(shard, columns, rows, last)


def steps_ahead(workers: Sequence[Worker]) -> int:
    """Steps dispatched before the first is fetched, so that each worker always has the next."""
    return 2 * len(workers) - 1


def prefetch(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items, each yielded once ``count`` more are taken from the iterable.

    The devices then work on the next steps while one is fetched.
    """
    waiting: collections.deque[T] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def stored_columns(job: Job, shard: Shard) -> dict[str, np.ndarray]:
    """Every column of a shard in its stored type, by name."""
    names = shard.rows[0]
    stored = {name: np.concatenate([rows[name] for rows in shard.rows]) for name in names}
    vocab_size = job.model.config.vocab_size
    for name in (n for n in job.resolved.columns if n in schema.COLUMNS):
        column = np.concatenate([columns[name] for columns in shard.columns])
        dtype = schema.stored_dtype(name, job.config.store.rows, vocab_size)
        stored[name] = column.astype(dtype)  # an id of -1 becomes the largest, the missing id
    return stored


def shard_range(job: Job, shard: int) -> records.ShardRange:
    """The run and the tokens that a shard belongs to."""
    start, stop = job.plan.tokens_of_shard(shard)
    return records.ShardRange(
        spec_hash=job.spec_hash,
        shard=shard,
        token_start=start,
        token_stop=stop,
        tokens_sha256=job.ingested.record.sha256,
    )


def build(job: Job, shard: Shard, buffer: Buffer) -> tuple[memoryview, int]:
    """The image of a shard, and its number of rows; valid until the buffer is used again."""
    range_, rows = shard_range(job, shard.number), stored_columns(job, shard)
    data = images.shard_image(
        range_,
        rows,
        shard.totals,
        job.model.config.layer_names,
        compression=job.config.store.compression,
        skipped=job.ingested.skipped,
        buffer=buffer,
        version=job.spec["format_version"],
    )
    return data, range_.token_stop - range_.token_start if rows else 0
