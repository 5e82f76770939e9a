"""The loop: plan -> step -> rows -> published shard, one step ahead of what is fetched."""

from __future__ import annotations

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from jaxlens import config as configs
from jaxlens import environment, ingest, numerics, schema, settle, types
from jaxlens import job as jobs
from jaxlens.corpus import tokenfile
from jaxlens.models import gpt2
from jaxlens.store import commit, derive, image, layout, publish, records, shards, writer
from jaxlens.tally import exact

T = TypeVar("T")

logger = logging.getLogger("jaxlens")


class Progress(Protocol):
    """Is told how far a sweep is."""

    def begin(self, total: int, done: int) -> None:
        """The sweep starts with ``done`` of its ``total`` tokens recorded."""

    def advance(self, count: int) -> None:
        """More tokens are recorded."""


@dataclass(frozen=True)
class Result:
    """What a sweep did.

    Attributes:
        out: Run directory.
        spec_hash: Its name.
        n_tokens: Tokens of the corpus, each recorded once.
        n_shards: Shards of the plan.
        computed: Shards that this call computed.
        tokens_per_second: Recorded tokens a second of the sweep itself; None if none were.
        finished: Whether all shards are there and the derived files built.
        skipped: Documents that were skipped, by reason.
        fill: Share of the computed positions that held a token.
    """

    out: str
    spec_hash: str
    n_tokens: int
    n_shards: int
    computed: int
    tokens_per_second: float | None
    finished: bool
    skipped: dict[str, int]
    fill: float


@dataclass(frozen=True)
class _Fetchable:
    """A dispatched step: arrays that the device may still be working on."""

    shard: int
    columns: dict[str, np.ndarray]
    rows: dict[str, jax.Array]
    totals: exact.Totals | None  # with the last step of its shard


def run(config: configs.RunConfig, progress: Progress | None = None) -> Result:
    """Sweeps a corpus into a run directory; the same call resumes.

    Args:
        config: From ``config.load``.
        progress: Is told how far it is.

    Raises:
        JaxlensError: See ``errors``; whatever was committed stays.
    """
    with tempfile.TemporaryDirectory(prefix="jaxlens-") as scratch:
        job = jobs.prepare(config, Path(scratch))
        layout.create_run(job.out, job.spec_bytes)
        placed = ingest.place(job.ingested, job.out / layout.TOKENS)
    with placed.open() as tokens:
        return _run(job, tokens, progress)


def _run(job: jobs.Job, tokens: tokenfile.TokenFile, progress: Progress | None) -> Result:
    missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash)
    index, total = configs.shard_of(job.config.shard)
    mine = [shard for shard in missing if shard % total == index]
    rate = None
    if mine:
        measured = {"identity_gate_nat": jobs.gate(job, tokens), "shards": len(mine)}
        _note(job, measured)
        if progress is not None:
            progress.begin(*_extent(job, mine, range(index, job.plan.n_shards, total)))
        rate = _compute(job, tokens, mine, progress)
        _note(job, measured | {"tokens_per_second": rate})
    finished = not shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
    if finished:
        derive.finalize(job.out)
    return Result(
        out=str(job.out),
        spec_hash=job.spec_hash,
        n_tokens=job.plan.n_tokens,
        n_shards=job.plan.n_shards,
        computed=len(mine),
        tokens_per_second=rate,
        finished=finished,
        skipped=job.ingested.skipped,
        fill=job.plan.fill,
    )


def _compute(
    job: jobs.Job,
    tokens: tokenfile.TokenFile,
    mine: Sequence[int],
    progress: Progress | None,
) -> float:
    """Computes and publishes shards; returns tokens a second, compilation left out."""
    compiled = compile_step(job, tokens)
    recorded = 0
    parts: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    began = time.perf_counter()
    with writer.Writer() as publisher:
        for item in one_behind(_dispatch(job, tokens, mine, compiled)):
            count = len(item.columns["token"])
            parts.append((item.columns, {k: np.asarray(v)[:count] for k, v in item.rows.items()}))
            recorded += count
            if progress is not None:
                progress.advance(count)
            if item.totals is not None:
                totals = jax.device_get(item.totals)
                publisher.submit(functools.partial(_publish, job, item.shard, parts, totals))
                parts = []
    return recorded / (time.perf_counter() - began)


def _extent(job: jobs.Job, missing: Iterable[int], all_mine: Iterable[int]) -> tuple[int, int]:
    """Tokens of this worker's shards, and how many of them are recorded already."""

    def tokens(chosen: Iterable[int]) -> int:
        return sum(stop - start for start, stop in map(job.plan.tokens_of_shard, chosen))

    total = tokens(all_mine)
    return total, total - tokens(missing)


def _dispatch(
    job: jobs.Job,
    tokens: tokenfile.TokenFile,
    mine: Sequence[int],
    compiled: Callable[..., Any],
) -> Iterator[_Fetchable]:
    tallies = schema.TALLIES[job.config.store.tallies]
    architecture = job.model.config
    lookup = exact.tables(architecture.vocab_size)
    for shard in mine:
        totals = exact.init(tallies, architecture.n_layer + 1, architecture.vocab_size)
        steps = job.plan.steps_of(shard)
        for number in steps:
            batch, columns = job.batch(number, tokens)
            values, rows = compiled(job.model.params, job.unembed, job.table, batch)
            totals = exact.update(tallies, totals, values, batch.count, lookup)
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


def _publish(
    job: jobs.Job,
    shard: int,
    parts: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]],
    totals: dict[str, np.ndarray],
) -> None:
    """Puts a shard together and commits it; runs in the writer's thread."""
    start, stop = job.plan.tokens_of_shard(shard)
    place = records.Place(
        spec_hash=job.spec_hash,
        shard=shard,
        token_start=start,
        token_stop=stop,
        tokens_sha256=job.ingested.record.sha256,
    )
    rows = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    vocab_size = job.model.config.vocab_size
    for name in (n for n in settle.rows(job.config) if n in schema.COLUMNS):
        column = np.concatenate([part[0][name] for part in parts])
        dtype = schema.stored_dtype(name, job.config.store.rows, vocab_size)
        rows[name] = column.astype(dtype)  # an id of -1 becomes the largest, the missing id
    data = image.shard_image(
        place,
        rows,
        totals,
        job.model.config.layer_names,
        compression=job.config.store.compression,
        skipped=job.ingested.skipped,
    )
    commit.publish_shard(job.out, place, data, stop - start if rows else 0)


def _note(job: jobs.Job, measured: dict[str, float]) -> None:
    """Leaves what must not matter: versions, devices, times."""
    worker = environment.worker_name()
    document = {"environment": environment.describe(), "measured": measured}
    path = layout.environment_path(job.out, worker)
    publish.publish(path, configs.canonical(document))
