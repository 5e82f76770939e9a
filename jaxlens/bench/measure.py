"""The benchmark of a device: the whole sweep and its stages, beside what the device can do.

The sweep is the real one, of random tokens, with rows written to disk. No figure stands alone:
beside the rates stand the matrix-multiply rate and the copy bandwidth of the same process, and the
error against the reference lens in float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import config as configs
from jaxlens import errors, models, types
from jaxlens.bench import random_model, stages
from jaxlens.files import scratch as scratches
from jaxlens.lens import numerics
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.sweep import batch_size, devices, environment, resolve, workers
from jaxlens.sweep import job as jobs
from jaxlens.view.figures import roofline as view

_PRECISIONS: tuple[configs.Precision, ...] = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Report:
    """What `measure` found; lists of seconds hold a round each, of all devices at once.

    Attributes:
        shape: Name of the model's shape, or where it came from.
        settings: Length, sequences, precision, tile, block, rows.
        devices: Number of devices.
        tokens: Tokens that ``forward``, ``lens`` and ``fetch`` read in a round.
        seconds: Stages: ``sweep`` (end to end), ``forward``, ``lens``, ``fetch``, ``publish``.
        sweep_tokens: Tokens of a shard, which is a round of ``sweep`` and ``publish``.
        published_bytes: Size of a shard.
        flops: Floating-point operations a token, by stage.
        bytes_moved: Bytes a token that have to move through memory, at least, by stage.
        multiply_flops: Rate of a plain matrix multiply, operations a second.
        copy_bytes: Bandwidth of a plain copy, bytes read and written a second.
        compile_seconds: Time to compile the step for all devices.
        peak_bytes: Most memory held: of the host, and of the first device where it says so.
        accuracy: Against the float32 reference: ``nats`` (largest difference of a float),
            ``ranks`` and ``top`` (shares that agree).
        environment: See ``environment.describe``.
    """

    shape: str
    settings: dict[str, Any]
    devices: int
    tokens: int
    seconds: dict[str, stages.Seconds]
    sweep_tokens: int
    published_bytes: int
    flops: dict[str, float]
    bytes_moved: dict[str, float]
    multiply_flops: float
    copy_bytes: float
    compile_seconds: float
    peak_bytes: dict[str, int]
    accuracy: dict[str, float]
    environment: dict[str, Any]

    def rate(self, stage: str) -> float:
        """Tokens a second of a stage, from the median round."""
        tokens = self.sweep_tokens if stage in ("sweep", "publish") else self.tokens
        return tokens / float(np.median(self.seconds[stage]))

    def of_multiply(self, stage: str) -> float:
        """Share of the matrix-multiply rate that a stage reaches."""
        return self.rate(stage) * self.flops[stage] / self.multiply_flops


@numerics.nan_is_missing()
def measure(shape: str | None, config: configs.RunConfig, rounds: int = 5) -> Report:
    """Measures one configuration.

    Args:
        shape: One of ``synthetic.SHAPES``; None for the model of the configuration.
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
    config = _filled(shape, config)
    chosen = devices.choose(config.devices)
    with scratches.folder() as folder:
        # A round is a shard, of a step for each device to work on and one to come.
        steps = 2 * len(chosen)
        job = _job(shape, config, steps, rounds + 1, folder)
        with job.ingested.open() as tokens:
            jax.clear_caches()  # of what was compiled to see whether it fits
            began = time.perf_counter()
            made = workers.make(job)
            compile_seconds = time.perf_counter() - began
            seconds, size = stages.alone(job, tokens, made, rounds)
            seconds["sweep"] = stages.sweep(job, tokens, made, rounds)
            accuracy = stages.accuracy(job, tokens)
        multiply, copied = stages.limits(chosen, config.lens.precision, job, rounds)
    capacity = job.plan.length * job.plan.step_sequences
    return Report(
        shape=shape or config.model.path,
        settings=_settings(job.config),
        devices=len(chosen),
        tokens=capacity * len(chosen),
        seconds=seconds,
        sweep_tokens=capacity * steps,
        published_bytes=size,
        flops=count_flops(job.static.architecture, job.plan.length),
        bytes_moved=count_bytes(job.static.architecture, job.config),
        multiply_flops=multiply,
        copy_bytes=copied,
        compile_seconds=compile_seconds,
        peak_bytes=_peak(chosen[0]),
        accuracy=accuracy,
        environment=environment.describe(),
    )


def grid(shape: str | None, config: configs.RunConfig) -> Iterator[configs.RunConfig]:
    """Configurations around one: half, the same and twice its sequences, precisions, tiles."""
    config = _filled(shape, config)
    length = config.plan.length or _architecture(shape, config).n_positions
    sequences = config.plan.step_sequences or resolve.default_sequences(length)
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


def _filled(shape: str | None, config: configs.RunConfig) -> configs.RunConfig:
    """Steps that fill a device; of the published shapes a CPU's core takes seconds for 256."""
    if shape is None or jax.default_backend() != "cpu":
        return config
    length, sequences = config.plan.length or 256, config.plan.step_sequences or 1
    plan = dataclasses.replace(config.plan, length=length, step_sequences=sequences)
    return dataclasses.replace(config, plan=plan)


def _job(
    shape: str | None, config: configs.RunConfig, steps: int, shards: int, folder: Path
) -> jobs.Job:
    """A sweep of random tokens, of so many shards of so many steps."""
    checkpoint = random_model.checkpoint(shape) if shape else _loaded(config)
    model = loading.from_checkpoint(checkpoint, config.model.dtype)
    config = batch_size.fit(config, checkpoint.architecture, model.params)
    length, sequences = config.plan.length or 0, steps * (config.plan.step_sequences or 0)
    store = dataclasses.replace(config.store, shard_tokens=length * sequences)
    config = dataclasses.replace(config, store=store, out=str(folder / "run"))
    config = resolve.settle(config, checkpoint.architecture)
    vocab_size = checkpoint.architecture.vocab_size
    ingested = random_model.ingested(folder, vocab_size, shards * sequences, length)
    words = np.zeros(vocab_size, bool)
    return jobs.assemble(config, checkpoint, model, ingested, (words, words))


def _architecture(shape: str | None, config: configs.RunConfig) -> types.Architecture:
    return random_model.architecture(shape) if shape else _loaded(config).architecture


def _loaded(config: configs.RunConfig) -> weights.Checkpoint:
    return loading.load_checkpoint(config.model.path, config.model.revision)


def count_flops(architecture: types.Architecture, length: int) -> dict[str, float]:
    """Operations of the multiplies a token; attention sees half of the line on average."""
    streams = architecture.n_layer + 1
    lens = 2.0 * streams * architecture.n_embd * architecture.vocab_size
    forward = models.forward_flops(architecture, length)
    return {"forward": forward, "lens": lens, "sweep": forward + lens}


def count_bytes(architecture: types.Architecture, config: configs.RunConfig) -> dict[str, float]:
    """Bytes a token that cannot stay in a cache.

    Weights once a step; residual streams written and read; the table once a block in each of
    the two phases; the end layers' logits written once and read twice.

    Args:
        architecture: Sizes.
        config: Settled.
    """
    embed, layers, vocab = architecture.n_embd, architecture.n_layer, architecture.vocab_size
    streams = (layers + 1) * embed * jnp.dtype(config.lens.residuals).itemsize
    operand = numerics.operand_dtype(config.lens.precision)
    positions = (config.plan.length or 1) * (config.plan.step_sequences or 1)
    expected = models.leaves(architecture)
    kernels = sum(
        math.prod(expected.stacked_shape(leaf))
        for leaf in expected.leaves
        if expected.is_layered(leaf) and len(leaf.shape) > 1
    )
    weights_read = kernels * jnp.dtype(config.model.dtype).itemsize / positions
    table = vocab * embed * jnp.dtype(operand).itemsize / (config.lens.block or positions)
    forward = weights_read + streams
    lens = streams + 2 * table + 3 * 2 * vocab * 4
    return {"forward": forward, "lens": lens, "sweep": forward + lens}


def roofline(reports: Sequence[Report]) -> tuple[str, list[view.Roof], list[view.Point]]:
    """What `view.roofline.draw` draws: a limit for each precision, a point for each stage."""
    first = reports[0]
    kind = first.environment["devices"][0]["kind"]
    if first.environment["backend"] == "cpu":
        kind = first.environment["processor"]
    title = f"{first.shape} on {first.devices} × {kind}"
    roofs, points = {}, []
    for report in reports:
        name = str(report.settings["precision"])
        best = roofs.get(name)
        if best is None or best.flops < report.multiply_flops:
            roofs[name] = view.Roof(name, report.multiply_flops, report.copy_bytes)
        for stage in ("forward", "lens", "sweep"):
            flops = report.flops[stage]
            intensity = flops / report.bytes_moved[stage]
            points.append(view.Point(name, stage, intensity, report.rate(stage) * flops))
    return title, list(roofs.values()), points


def _settings(config: configs.RunConfig) -> dict[str, Any]:
    return {
        "length": config.plan.length,
        "step_sequences": config.plan.step_sequences,
        "precision": config.lens.precision,
        "dtype": config.model.dtype,
        "implementation": config.lens.implementation,
        "tile": config.lens.tile,
        "block": config.lens.block,
        "rows": config.store.rows,
    }


def _peak(device: jax.Device) -> dict[str, int]:
    peak = {"host": environment.peak_bytes()}
    if stats := device.memory_stats():
        peak["device"] = int(stats.get("peak_bytes_in_use", 0))
    return peak
