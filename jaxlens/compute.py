"""Computing shards: steps on the device, fetched one behind, put together into images."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

from jaxlens import grace as graces
from jaxlens import job as jobs
from jaxlens import numerics, schema, settle, types
from jaxlens.corpus import tokenfile
from jaxlens.models import gpt2
from jaxlens.store import buffer, image, records
from jaxlens.tally import exact

T = TypeVar("T")

PUBLISH_SECONDS = 2.0
"""Generous time to publish a shard, of at most 256 MiB, within a grace."""

logger = logging.getLogger("jaxlens")


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
    totals: exact.Totals | None  # with the last step of its shard


def shards(
    job: jobs.Job,
    tokens: tokenfile.TokenFile,
    numbers: Iterable[int],
    compiled: jax.stages.Compiled,
    grace: graces.Grace,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Shard]:
    """Computes shards; ends early, between shards, where it is asked to stop.

    Args:
        job: Sweep.
        tokens: Its token file.
        numbers: Shards.
        compiled: Of `compile_step`.
        grace: Is asked before every step; a shard that does not fit is dropped.
        advance: Is told of every step how many tokens it had.
    """
    columns: list[dict[str, np.ndarray]] = []
    rows: list[dict[str, np.ndarray]] = []
    for item in one_behind(_dispatch(job, tokens, numbers, compiled, grace)):
        count = len(item.columns["token"])
        columns.append(item.columns)
        rows.append({name: np.asarray(value)[:count] for name, value in item.rows.items()})
        advance(count)
        if item.totals is not None:
            yield Shard(item.shard, columns, rows, jax.device_get(item.totals))
            columns, rows = [], []


def _dispatch(
    job: jobs.Job,
    tokens: tokenfile.TokenFile,
    numbers: Iterable[int],
    compiled: jax.stages.Compiled,
    grace: graces.Grace,
) -> Iterator[_Fetchable]:
    tallies = schema.TALLIES[job.config.store.tallies]
    architecture = job.model.config
    lookup = exact.tables(architecture.vocab_size)
    began, done = time.monotonic(), 0
    for shard in numbers:
        if grace.asked:
            return
        totals = exact.init(tallies, architecture.n_layer + 1, architecture.vocab_size)
        steps = job.plan.steps_of(shard)
        for number in steps:
            # The one that is fetched last was dispatched before it, hence one more.
            left = steps[-1] - number + 2
            pace = (time.monotonic() - began) / max(1, done)
            if grace.asked and not grace.allows(left * pace + PUBLISH_SECONDS):
                return
            batch, columns = job.batch(number, tokens)
            values, rows = compiled(job.model.params, job.unembed, job.table, batch)
            totals = exact.update(tallies, totals, values, batch.count, lookup)
            done += 1
            yield _Fetchable(shard, columns, rows, totals if number == steps[-1] else None)


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each only after the next was asked for.

    The device then works on step n + 1 while step n is fetched.
    """
    held: list[T] = []
    for item in items:
        held.append(item)
        if len(held) == 2:
            yield held.pop(0)
    yield from held


def compile_step(job: jobs.Job, tokens: tokenfile.TokenFile) -> jax.stages.Compiled:
    """The step, compiled once for the shape that every step of the run has."""
    logger.info("compiling the step")
    batch, _ = job.batch(0, tokens)
    function = jax.jit(functools.partial(step, job.static))
    with numerics.matmul_precision(job.config.lens.precision):
        lowered = function.lower(job.model.params, job.unembed, job.table, batch)
    return lowered.compile()


def step(
    static: jobs.Static,
    params: types.Params,
    unembed: types.Unembed,
    table: Any,
    batch: types.Step,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Residuals, readout, rows: all of a step that runs on the device.

    Returns:
        Values for the tallies, ``[row, layer]``, and the rows in their stored types.
    """
    streams = gpt2.residuals(
        params, static.architecture, batch.tokens, batch.positions, batch.segments
    )
    readout = static.read(streams, unembed, batch.references, table)
    values = {name: _rows(value, batch.order) for name, value in readout.present().items()}
    stored = {name: values[name].astype(dtype) for name, dtype in static.stored}
    values = {name: value for name, value in values.items() if name in schema.SUMMED}
    values["token"] = batch.tokens.reshape(-1)[batch.order]
    return values, stored


def _rows(value: jax.Array, order: jax.Array) -> jax.Array:
    """``[layer, batch, position, ...]`` to ``[row, layer, ...]`` in token-file order."""
    flat = value.reshape(value.shape[0], -1, *value.shape[3:])
    return flat[:, order].swapaxes(0, 1)


def merged(job: jobs.Job, shard: Shard) -> dict[str, np.ndarray]:
    """Every column of a shard as it is stored."""
    names = shard.rows[0]
    found = {name: np.concatenate([rows[name] for rows in shard.rows]) for name in names}
    vocab_size = job.model.config.vocab_size
    for name in (n for n in settle.rows(job.config) if n in schema.COLUMNS):
        column = np.concatenate([columns[name] for columns in shard.columns])
        dtype = schema.stored_dtype(name, job.config.store.rows, vocab_size)
        found[name] = column.astype(dtype)  # an id of -1 becomes the largest, the missing id
    return found


def place(job: jobs.Job, shard: int) -> records.Place:
    """Where a shard belongs."""
    start, stop = job.plan.tokens_of_shard(shard)
    return records.Place(
        spec_hash=job.spec_hash,
        shard=shard,
        token_start=start,
        token_stop=stop,
        tokens_sha256=job.ingested.record.sha256,
    )


def build(job: jobs.Job, shard: Shard, memory: buffer.Buffer) -> tuple[memoryview, int]:
    """The image of a shard, and its number of rows; it holds until the memory is used again."""
    where, rows = place(job, shard.number), merged(job, shard)
    data = image.shard_image(
        where,
        rows,
        shard.totals,
        job.model.config.layer_names,
        compression=job.config.store.compression,
        skipped=job.ingested.skipped,
        memory=memory,
    )
    return data, where.token_stop - where.token_start if rows else 0
