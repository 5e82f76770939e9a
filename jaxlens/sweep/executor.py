"""Computing shards: steps on the devices, fetched behind, put together into images."""

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
from jaxlens.store.hdf5 import buffers, images
from jaxlens.sweep import job as jobs
from jaxlens.sweep import preemption as graces
from jaxlens.sweep import resolve, workers
from jaxlens.tally import update

T = TypeVar("T")

PUBLISH_SECONDS = 2.0
"""Generous time to publish a shard, of at most 256 MiB, within a grace."""


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
    job: jobs.Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    devices: Sequence[workers.Lane],
    grace: graces.Grace,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Shard]:
    """Computes shards; ends early, between shards, where it is asked to stop.

    Args:
        job: Sweep.
        tokens: Its token file.
        numbers: Shards.
        devices: Of `lanes.make`; they take turns.
        grace: Is asked before every step; a shard that does not fit is dropped.
        advance: Is told of every step how many tokens it had.
    """
    columns: list[dict[str, np.ndarray]] = []
    rows: list[dict[str, np.ndarray]] = []
    for item in behind(_dispatch(job, tokens, numbers, devices, grace), _ahead(devices)):
        count = len(item.columns["token"])
        columns.append(item.columns)
        rows.append({name: np.asarray(value)[:count] for name, value in item.rows.items()})
        advance(count)
        if item.totals is not None:
            yield Shard(item.shard, columns, rows, update.merge(jax.device_get(item.totals)))
            columns, rows = [], []


def _dispatch(
    job: jobs.Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    devices: Sequence[workers.Lane],
    grace: graces.Grace,
) -> Iterator[_Fetchable]:
    began, done = time.monotonic(), 0
    for shard in numbers:
        if grace.asked:
            return
        totals: dict[workers.Lane, update.Totals] = {}
        steps = job.plan.steps_of(shard)
        for number in steps:
            # Those that wait to be fetched were dispatched before it.
            left = steps[-1] - number + 1 + _ahead(devices)
            pace = (time.monotonic() - began) / max(1, done)
            if grace.asked and not grace.allows(left * pace + PUBLISH_SECONDS):
                return
            batch, columns = job.batch(number, tokens)
            lane = devices[done % len(devices)]
            begun = totals.get(lane) or lane.begin()
            rows, totals[lane] = lane.run(batch, job.tally_columns(columns), begun)
            done += 1
            last = list(totals.values()) if number == steps[-1] else None
            yield _Fetchable(shard, columns, rows, last)


def _ahead(devices: Sequence[workers.Lane]) -> int:
    """Steps that are dispatched before one is waited for: each device has another at hand."""
    return 2 * len(devices) - 1


def behind(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items, each only after ``count`` more were asked for.

    The devices then work on the next steps while one is fetched.
    """
    held: collections.deque[T] = collections.deque()
    for item in items:
        held.append(item)
        if len(held) > count:
            yield held.popleft()
    yield from held


def merged(job: jobs.Job, shard: Shard) -> dict[str, np.ndarray]:
    """Every column of a shard as it is stored."""
    names = shard.rows[0]
    found = {name: np.concatenate([rows[name] for rows in shard.rows]) for name in names}
    vocab_size = job.model.config.vocab_size
    for name in (n for n in resolve.rows(job.config) if n in schema.COLUMNS):
        column = np.concatenate([columns[name] for columns in shard.columns])
        dtype = schema.stored_dtype(name, job.config.store.rows, vocab_size)
        found[name] = column.astype(dtype)  # an id of -1 becomes the largest, the missing id
    return found


def place(job: jobs.Job, shard: int) -> records.ShardRange:
    """Where a shard belongs."""
    start, stop = job.plan.tokens_of_shard(shard)
    return records.ShardRange(
        spec_hash=job.spec_hash,
        shard=shard,
        token_start=start,
        token_stop=stop,
        tokens_sha256=job.ingested.record.sha256,
    )


def build(job: jobs.Job, shard: Shard, buffer: buffers.Buffer) -> tuple[memoryview, int]:
    """The image of a shard, and its number of rows; it holds until the memory is used again."""
    where, rows = place(job, shard.number), merged(job, shard)
    data = images.shard_image(
        where,
        rows,
        shard.totals,
        job.model.config.layer_names,
        compression=job.config.store.compression,
        skipped=job.ingested.skipped,
        buffer=buffer,
        version=job.spec["format_version"],
    )
    return data, where.token_stop - where.token_start if rows else 0
