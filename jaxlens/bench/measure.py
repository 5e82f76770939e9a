"""The benchmark of a device: the whole sweep and its stages, beside what the device can do.

The sweep is the real one, of random tokens, with rows written to disk. No figure stands alone:
beside the rates stand the matrix-multiply rate and the copy bandwidth of the same process, and the
error against the reference lens in float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlens import errors, types
from jaxlens.bench import counts, random_model, stages
from jaxlens.config import Precision, RunConfig
from jaxlens.files import scratch
from jaxlens.lens import numerics
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint as checkpoints
from jaxlens.sweep import batch_size, devices, environment, prepare, resolve
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import compile_workers
from jaxlens.view.figures.roofline import Point, Roof

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of `measure`; lists of seconds hold a round each, of all devices at once.

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
    config = _filled(shape, config)
    targets = devices.choose(config.devices)
    with scratch.folder() as folder:
        # A round is a shard, of a step for each device to work on and one to come.
        steps = 2 * len(targets)
        job = _job(shape, config, steps, rounds + 1, folder)
        with job.ingested.open() as tokens:
            jax.clear_caches()  # of what was compiled to see whether it fits
            began = time.perf_counter()
            workers = compile_workers(job)
            compile_seconds = time.perf_counter() - began
            seconds, size = stages.alone(job, tokens, workers, rounds)
            seconds["sweep"] = stages.sweep(job, tokens, workers, rounds)
            accuracy = stages.accuracy(job, tokens)
        multiply, copied = stages.limits(targets, config.lens.precision, job, rounds)
    step_tokens = job.resolved.step_tokens
    return Report(
        shape=shape or config.model.path,
        settings=_settings(job.config),
        devices=len(targets),
        tokens=step_tokens * len(targets),
        seconds=seconds,
        sweep_tokens=step_tokens * steps,
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
    config = _filled(shape, config)
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


def _filled(shape: str | None, config: RunConfig) -> RunConfig:
    """Steps that fill a device; of the published shapes a CPU's core takes seconds for 256."""
    if shape is None or jax.default_backend() != "cpu":
        return config
    length, sequences = config.plan.length or 256, config.plan.step_sequences or 1
    plan = dataclasses.replace(config.plan, length=length, step_sequences=sequences)
    return dataclasses.replace(config, plan=plan)


def _job(shape: str | None, config: RunConfig, steps: int, shards: int, folder: Path) -> Job:
    """A sweep of random tokens, of so many shards of so many steps."""
    checkpoint = random_model.checkpoint(shape) if shape else _loaded(config)
    model = loading.from_checkpoint(checkpoint, config.model.dtype)
    config = dataclasses.replace(config, out=str(folder / "run"))
    resolved = resolve.resolve(config, checkpoint.architecture)
    resolved = batch_size.fit_batch_to_memory(resolved, model.params)
    resolved = resolved.with_shard_tokens(steps * resolved.step_tokens)
    documents, vocab_size = shards * steps * resolved.step_sequences, model.config.vocab_size
    ingested = random_model.ingested(folder, vocab_size, documents, resolved.length)
    words = np.zeros(vocab_size, bool)
    return prepare.assemble(resolved, checkpoint, model, ingested, (words, words))


def _architecture(shape: str | None, config: RunConfig) -> types.Architecture:
    return random_model.architecture(shape) if shape else _loaded(config).architecture


def _loaded(config: RunConfig) -> checkpoints.Checkpoint:
    return loading.load_checkpoint(config.model.path, config.model.revision)


def roofline(reports: Sequence[Report]) -> tuple[str, list[Roof], list[Point]]:
    """Input of ``view.figures.roofline.draw``: a roof a precision, a point a stage."""
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
            roofs[name] = Roof(name, report.multiply_flops, report.copy_bytes)
        for stage in ("forward", "lens", "sweep"):
            flops = report.flops[stage]
            intensity = flops / report.bytes_moved[stage]
            points.append(Point(name, stage, intensity, report.rate(stage) * flops))
    return title, list(roofs.values()), points


def _settings(config: RunConfig) -> dict[str, Any]:
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
