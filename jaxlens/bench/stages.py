"""Timings of a benchmark: the sweep, each of its stages alone, and what the device can do."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import schema, types
from jaxlens.corpus import token_file
from jaxlens.lens import numerics, reference
from jaxlens.lens.options import Options
from jaxlens.models import gpt2
from jaxlens.store import commit, run_directory
from jaxlens.store.hdf5 import buffers
from jaxlens.sweep import executor, workers
from jaxlens.sweep import job as jobs
from jaxlens.sweep import preemption as graces
from jaxlens.sweep import run as sweeps

Seconds = tuple[float, ...]

SAMPLE = 64
"""Tokens that are compared with the reference lens."""

_COPIED = 2**25  # float32 numbers: far beyond any cache
_MATRICES = ((512, 512), (1024, 1024), (4096, 4608), (8192, 8192))
"""Rows and columns of the multiplies that are tried; the fastest counts."""


class _Clock:
    """Notes when the sweep has fetched another shard."""

    def __init__(self, shard_tokens: int) -> None:
        self._tokens = shard_tokens
        self._done = 0
        self.times: list[float] = []

    def begin(self, total: int, done: int) -> None:
        """Nothing to note."""

    def advance(self, count: int) -> None:
        """Counts; a shard ends with a step."""
        self._done += count
        if self._done % self._tokens == 0:
            self.times.append(time.perf_counter())


def sweep(
    job: jobs.Job, tokens: token_file.TokenFile, made: Sequence[workers.Lane], rounds: int
) -> Seconds:
    """Seconds a shard of the real thing, in one go, rows on disk; the first shard warms up."""
    run_directory.create_run(job.out, job.spec_bytes)
    clock = _Clock(job.plan.tokens_of_shard(0)[1])
    sweeps.publish_all(job, tokens, range(rounds + 1), made, graces.Grace(), clock)
    return tuple(float(spent) for spent in np.diff(clock.times))


def alone(
    job: jobs.Job, tokens: token_file.TokenFile, made: Sequence[workers.Lane], rounds: int
) -> tuple[dict[str, Seconds], int]:
    """Seconds of each stage alone, and the bytes of what was published."""
    batch, _ = job.batch(0, tokens)
    forward = jax.jit(
        lambda params, batch: gpt2.residuals(
            params, job.static.architecture, batch.tokens, batch.positions, batch.segments
        )
    )
    read = jax.jit(job.static.read)
    batches = [jax.device_put(batch, lane.device) for lane in made]
    with numerics.matmul_precision(job.config.lens.precision):
        each = [(lane.weights[0], mine) for lane, mine in zip(made, batches, strict=True)]
        streams = [forward(*mine) for mine in each]
        lens = [
            (stream, lane.weights[1], mine.references, lane.weights[2])
            for stream, lane, mine in zip(streams, made, batches, strict=True)
        ]
        seconds = {
            "forward": _time(lambda: [forward(*mine) for mine in each], rounds),
            "lens": _time(lambda: [read(*mine) for mine in lens], rounds),
        }
    seconds["fetch"] = tuple(_fetch(made, batches) for _ in range(rounds))
    shards = list(executor.shards(job, tokens, [0], made, graces.Grace()))
    memory = buffers.Buffer()
    published = [_publish(job, shards, memory) for _ in range(rounds + 1)][1:]
    seconds["publish"] = tuple(spent for spent, _ in published)
    return seconds, published[0][1]


def _fetch(made: Sequence[workers.Lane], batches: Sequence[types.Step]) -> float:
    rows = [lane.step(*lane.weights, mine)[1] for lane, mine in zip(made, batches, strict=True)]
    jax.block_until_ready(rows)
    began = time.perf_counter()
    jax.device_get(rows)
    return time.perf_counter() - began


def _publish(
    job: jobs.Job, shards: Sequence[executor.Shard], memory: buffers.Buffer
) -> tuple[float, int]:
    """Builds and commits shards into a folder of their own."""
    out = job.out.with_name("published")
    run_directory.create_run(out, job.spec_bytes)
    size, began = 0, time.perf_counter()
    for shard in shards:
        data, rows = executor.build(job, shard, memory)
        commit.publish_shard(out, executor.place(job, shard.number), data, rows)
        size += data.nbytes
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds, size


def accuracy(job: jobs.Job, tokens: token_file.TokenFile) -> dict[str, float]:
    """The lens of the benchmark against the reference, on the same residuals."""
    count = min(SAMPLE, job.plan.length)
    ids = tokens.read(0, count).astype(np.int32)[None]
    after = tokens.read(1, count + 1).astype(np.int32)[None]
    ids, after = jnp.asarray(ids), jnp.asarray(after)
    known = types.References(ids, after, after, ids, jnp.ones(ids.shape, bool))
    with numerics.matmul_precision("float32"):
        streams = jax.jit(gpt2.residuals, static_argnums=1)(
            job.model.params, job.static.architecture, ids
        )
    got = jax.jit(job.static.read)(streams, job.unembed, known, job.table).present()
    exact = Options(job.static.request.quantities, top_k=job.static.request.top_k)
    want = jax.jit(reference.read, static_argnums=3)(streams, job.unembed, known, exact).present()
    kinds = {name: schema.QUANTITIES[name].kind for name in got}
    return {
        "nats": max(
            float(jnp.nanmax(jnp.abs(got[n] - want[n]))) for n in got if kinds[n] == "float"
        ),
        "ranks": float(np.mean([(got[n] == want[n]).mean() for n in got if kinds[n] == "rank"])),
        "top": float((got["top_id"] == want["top_id"]).mean()),
    }


def limits(
    chosen: Sequence[jax.Device], precision: str, job: jobs.Job, rounds: int
) -> tuple[float, float]:
    """Operations a second of a plain multiply, and bytes a second of a copy, of all devices."""
    depth = job.static.architecture.n_embd
    dtype = numerics.operand_dtype(precision)
    multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    copy = jax.jit(lambda x: x + 1)

    def ones(*shape: int, dtype: Any = jnp.float32) -> list[jax.Array]:
        return [jax.device_put(jnp.ones(shape, dtype), device) for device in chosen]

    rates = []
    with numerics.matmul_precision(precision):
        for rows, columns in _MATRICES:
            left, right = ones(rows, depth, dtype=dtype), ones(depth, columns, dtype=dtype)
            pairs = list(zip(left, right, strict=True))
            seconds = _time(lambda pairs=pairs: [multiply(*pair) for pair in pairs], rounds)
            rates.append(2.0 * rows * columns * depth * len(chosen) / float(np.median(seconds)))
    arrays = ones(_COPIED)
    copied = _time(lambda: [copy(array) for array in arrays], rounds)
    return max(rates), 8.0 * _COPIED * len(chosen) / float(np.median(copied))


def _time(run: Callable[[], Any], rounds: int) -> Seconds:
    jax.block_until_ready(run())
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)
