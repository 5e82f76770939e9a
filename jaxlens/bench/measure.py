"""The benchmark of a device: the whole sweep and its stages, beside what the device can do.

The sweep is the real one, of random tokens, with rows written to disk. No figure stands alone:
beside the rates stand the matrix-multiply rate and the copy bandwidth of the same process, and the
error against the reference lens in float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlens import errors, types
from jaxlens.bench import counts, random_model, roofline, stages
from jaxlens.bench.report import Report
from jaxlens.config import Precision, RunConfig
from jaxlens.files import scratch
from jaxlens.lens import numerics
from jaxlens.models import loading
from jaxlens.models.checkpoints.checkpoint import Checkpoint
from jaxlens.sweep import (
    batch_size,
    devices,
    environment,
    mesh_size,
    prepare,
    resolve,
    type_means,
)
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import compile_workers

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@numerics.nan_is_missing()
def measure(shape: str | None, config: RunConfig, rounds: int = 5) -> Report:
    """Measures one configuration.

    Args:
        shape: One of ``random_model.SHAPES``; None for the model of the configuration.
        config: Its corpus and its output do not matter.
        rounds: Repetitions, of which the median counts.

    Raises:
        JaxlensError: See ``errors``.
    """
    numerics.require_compilation()
    devices.offer_cores()
    numerics.require_precision(config.lens.precision)
    if rounds < 1:
        raise errors.ConfigError(f"rounds is {rounds}", "give at least 1")
    config = fill_device(shape, config)
    targets = devices.choose(config.devices)
    with scratch.folder() as folder:
        job = random_job(shape, config, rounds + 1, folder)
        with job.ingested.open() as tokens:
            jax.clear_caches()  # of what was compiled to see whether it fits
            began = time.perf_counter()
            workers = compile_workers(job)
            compile_seconds = time.perf_counter() - began
            seconds, size = stages.alone(job, tokens, workers, rounds)
            seconds["sweep"] = stages.sweep(job, tokens, workers, rounds)
            accuracy = stages.accuracy(job, tokens)
        multiply, copied = roofline.limits(targets, config.lens.precision, job, rounds)
    step_tokens = job.resolved.step_tokens
    return Report(
        shape=shape or config.model.path,
        settings=_settings(job.config),
        devices=len(targets),
        tokens=step_tokens * len(workers),
        seconds=seconds,
        sweep_tokens=job.plan.tokens_of_shard(0)[1],
        published_bytes=size,
        flops=counts.count_flops(job.resolved.architecture, job.plan.length),
        bytes_moved=counts.count_bytes(job.resolved),
        multiply_flops=multiply,
        copy_bytes=copied,
        compile_seconds=compile_seconds,
        peak_bytes=_peak(targets[0]),
        accuracy=accuracy,
        environment=environment.describe(),
    )


def grid(shape: str | None, config: RunConfig) -> Iterator[RunConfig]:
    """Configurations around one: half, the same and twice its sequences, precisions, tiles."""
    config = fill_device(shape, config)
    length = config.plan.length or _architecture(shape, config).n_positions
    sequences = config.plan.step_sequences or resolve.default_step_sequences(length)
    for count, precision, tile in itertools.product(
        sorted({max(1, sequences // 2), sequences, 2 * sequences}),
        _PRECISIONS,
        (512, 1024, 2048),
    ):
        yield dataclasses.replace(
            config,
            plan=dataclasses.replace(config.plan, step_sequences=count),
            lens=dataclasses.replace(config.lens, precision=precision, tile=tile),
        )


def fill_device(shape: str | None, config: RunConfig) -> RunConfig:
    """The configuration with steps that fill a device.

    Of the published shapes a core of a CPU takes seconds for 256 positions.
    """
    if shape is None or jax.default_backend() != "cpu":
        return config
    length, sequences = config.plan.length or 256, config.plan.step_sequences or 1
    plan = dataclasses.replace(config.plan, length=length, step_sequences=sequences)
    return dataclasses.replace(config, plan=plan)


def random_job(shape: str | None, config: RunConfig, shards: int, folder: Path) -> Job:
    """A sweep of random tokens, of so many shards.

    A shard is a round: a step for each worker to work on, and one to come.
    """
    checkpoint = random_model.checkpoint(shape) if shape else _loaded(config)
    config = dataclasses.replace(config, out=str(folder / "run"))
    resolved = mesh_size.resolve_mesh(config, checkpoint.architecture)
    groups = devices.groups(resolved.config)
    model = loading.from_checkpoint(checkpoint, config.model.dtype, groups[0].devices)
    steps = 2 * len(groups)
    resolved = batch_size.fit_batch_to_memory(resolved, model.params)
    resolved = resolved.with_shard_tokens(steps * resolved.step_tokens)
    documents, vocab_size = shards * steps * resolved.step_sequences, model.config.vocab_size
    ingested = random_model.ingested(folder, vocab_size, documents, resolved.length)
    words = np.zeros(vocab_size, bool)
    job = prepare.assemble(resolved, checkpoint, model, ingested, (words, words))
    return type_means.with_table(job, None, folder)


def _architecture(shape: str | None, config: RunConfig) -> types.Architecture:
    return random_model.architecture(shape) if shape else _loaded(config).architecture


def _loaded(config: RunConfig) -> Checkpoint:
    return loading.load_checkpoint(config.model.path, config.model.revision, read=False)


def _settings(config: RunConfig) -> dict[str, Any]:
    return {
        "length": config.plan.length,
        "step_sequences": config.plan.step_sequences,
        "precision": config.lens.precision,
        "dtype": config.model.dtype,
        "implementation": config.lens.implementation,
        "tile": config.lens.tile,
        "block": config.lens.block,
        **({"mesh": config.mesh.model} if config.mesh.model != 1 else {}),
        "rows": config.store.rows,
    }


def _peak(device: jax.Device) -> dict[str, int]:
    peak = {"host": environment.peak_bytes()}
    if stats := device.memory_stats():
        peak["device"] = int(stats.get("peak_bytes_in_use", 0))
    return peak
