"""Timings of a benchmark: the sweep, and each of its stages alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import models, schema, types
from jaxlens.corpus import token_file
from jaxlens.lens import mesh, numerics, reference
from jaxlens.lens.options import Options
from jaxlens.models import loading
from jaxlens.store import commit, run_directory
from jaxlens.store.hdf5.buffers import Buffer
from jaxlens.sweep import compute, in_process, preemption, progress
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker

Seconds = tuple[float, ...]

SAMPLE = 64
"""Tokens that are compared with the reference lens."""


class _Clock(progress.Count):
    """Records when the sweep has committed another shard."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.plan.tokens_of_shard)
        self.times: list[float] = []

    def committed(self, shard: int) -> None:
        """Takes the time."""
        super().committed(shard)
        self.times.append(time.perf_counter())


def sweep(
    job: Job, tokens: token_file.TokenFile, workers: Sequence[Worker], rounds: int
) -> Seconds:
    """Seconds a shard of the real thing, in one go, rows on disk; the first shard warms up."""
    run_directory.create_run(job.out, job.spec_bytes)
    clock = _Clock(job)
    in_process.publish_all(job, tokens, range(rounds + 1), workers, clock, preemption.StopRequest())
    return tuple(float(spent) for spent in np.diff(clock.times))


def alone(
    job: Job, tokens: token_file.TokenFile, workers: Sequence[Worker], rounds: int
) -> tuple[dict[str, Seconds], int]:
    """Seconds of each stage alone, and the bytes of what was published."""
    batch, _ = job.batch(0, tokens)

    @jax.jit
    def forward(params: types.Params, batch: types.Step) -> jax.Array:
        given = batch.tokens, batch.positions, batch.segments
        with mesh.context(job.resolved.model_devices):
            return models.residuals(params, job.resolved.architecture, *given)

    read = jax.jit(job.step_config.read)
    batches = [worker.group.put(batch) for worker in workers]
    with numerics.matmul_precision(job.config.lens.precision):
        inputs = [(worker.weights[0], own) for worker, own in zip(workers, batches, strict=True)]
        streams = [forward(*pair) for pair in inputs]
        lens = [
            (stream, worker.weights[1], own.references, worker.weights[2])
            for stream, worker, own in zip(streams, workers, batches, strict=True)
        ]
        seconds = {
            "forward": timed(lambda: [forward(*pair) for pair in inputs], rounds),
            "lens": timed(lambda: [read(*arguments) for arguments in lens], rounds),
        }
    seconds["fetch"] = tuple(_fetch(workers, batches) for _ in range(rounds))
    shards = list(compute.shards(job, tokens, [0], workers, preemption.StopRequest()))
    buffer = Buffer()
    published = [_publish(job, shards, buffer) for _ in range(rounds + 1)][1:]
    seconds["publish"] = tuple(spent for spent, _ in published)
    return seconds, published[0][1]


def _fetch(workers: Sequence[Worker], batches: Sequence[types.Step]) -> float:
    rows = [
        worker.step(*worker.weights, mine)[1] for worker, mine in zip(workers, batches, strict=True)
    ]
    jax.block_until_ready(rows)
    began = time.perf_counter()
    jax.device_get(rows)
    return time.perf_counter() - began


def _publish(job: Job, shards: Sequence[compute.Shard], buffer: Buffer) -> tuple[float, int]:
    """Builds and commits shards into a folder of their own."""
    out = job.out.with_name("published")
    run_directory.create_run(out, job.spec_bytes)
    size, began = 0, time.perf_counter()
    for shard in shards:
        data, rows = compute.build(job, shard, buffer)
        commit.publish_shard(out, compute.shard_range(job, shard.number), data, rows)
        size += data.nbytes
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds, size


def accuracy(job: Job, tokens: token_file.TokenFile) -> dict[str, float]:
    """The lens of the benchmark against the reference, on the same residuals."""
    count = min(SAMPLE, job.plan.length)
    ids = tokens.read(0, count).astype(np.int32)[None]
    after = tokens.read(1, count + 1).astype(np.int32)[None]
    ids, after = jnp.asarray(ids), jnp.asarray(after)
    known = types.References(ids, after, after, ids, jnp.ones(ids.shape, bool))
    streams = loading.forward(job.model.params, job.resolved.architecture, ids)
    got = jax.jit(job.step_config.read)(streams, job.unembed, known, job.tiles).present()
    exact = Options(job.step_config.request.quantities, top_k=job.step_config.request.top_k)
    want = jax.jit(reference.read, static_argnums=3)(streams, job.unembed, known, exact).present()
    kinds = {name: schema.QUANTITIES[name].kind for name in got}
    return {
        "nats": max(
            float(jnp.nanmax(jnp.abs(got[n] - want[n]))) for n in got if kinds[n] == "float"
        ),
        "ranks": float(np.mean([(got[n] == want[n]).mean() for n in got if kinds[n] == "rank"])),
        "top": float((got["top_id"] == want["top_id"]).mean()),
    }


def timed(call: Callable[[], Any], rounds: int) -> Seconds:
    """Seconds of each call until its result is there; the first call warms up."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)
