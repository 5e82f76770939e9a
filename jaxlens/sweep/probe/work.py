"""What the passes of a probe share: text, classes, devices, and where checkpoints go."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlens import models, types
from jaxlens.lens import numerics
from jaxlens.store import probe_file
from jaxlens.sweep import devices, environment, preemption
from jaxlens.sweep.job import Job
from jaxlens.sweep.probe import checkpoint, data, moments
from jaxlens.sweep.probe.survey import Survey
from jaxlens.sweep.progress import Progress

_UNKNOWN = 4 * 10**9
"""Bytes of moments where the system does not say what is free."""


@dataclass(frozen=True, eq=False)
class Worker:
    """A device with the weights; workers take turns with the steps, as those of a sweep do.

    Each adds to totals of its own, which are integers: which worker adds a step decides nothing.
    """

    device: jax.Device
    params: types.Params


@dataclass(frozen=True, eq=False)
class Work:
    """What all passes share.

    Attributes:
        corpus: Text of the run.
        survey: Steps and classes.
        workers: Devices that take turns.
        layers_per_pass: Layers whose moments are held at once.
        spec_hash: Of the probe, which its checkpoints bear.
        progress: Receives updates.
        stop: Checked before every step.
        interval: Between checkpoints.
        done: Positions that this process has computed, in its only entry.
    """

    corpus: data.Corpus
    survey: Survey
    workers: tuple[Worker, ...]
    layers_per_pass: int
    spec_hash: str
    progress: Progress | None
    stop: preemption.StopRequest
    interval: checkpoint.Interval
    done: list[int] = field(default_factory=lambda: [0])

    @property
    def out(self) -> Path:
        """Run directory."""
        return self.corpus.job.out

    @property
    def n_layers(self) -> int:
        """Residual streams of the model."""
        return self.corpus.job.model.config.n_layer + 1

    @property
    def n_embd(self) -> int:
        """Width of a residual stream."""
        return self.corpus.job.model.config.n_embd

    def advance(self, count: int) -> None:
        """``count`` more positions are computed."""
        self.done[0] += count
        if self.progress is not None:
            self.progress.advance(count)

    def streams(self, batch: types.Step, worker: Worker) -> jax.Array:
        """All residual streams of a step, on the device of a worker."""
        job = self.corpus.job
        with numerics.matmul_precision(job.config.lens.precision):
            grids = batch.tokens, batch.positions, batch.segments
            return _streams(job.model.config, worker.params, *grids)

    def read_checkpoint(
        self, name: str, known: dict[str, Any], arrays: dict[str, Any]
    ) -> dict[str, Any] | None:
        """See ``checkpoint.read``."""
        path = probe_file.path(self.out, name)
        return checkpoint.read(path, known | {"spec_hash": self.spec_hash}, arrays)

    def write_checkpoint(self, name: str, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See ``checkpoint.write``."""
        path = probe_file.path(self.out, name)
        checkpoint.write(path, state | {"spec_hash": self.spec_hash}, arrays)


def divide(job: Job, survey: Survey, memory: int | None) -> tuple[int, tuple[Worker, ...]]:
    """Layers of a pass, and workers: as many as have their moments in memory at once.

    Args:
        job: The run.
        survey: Its classes.
        memory: Bytes of moments, those on devices and their sum on the host; half of what is free
            where it is None. Those of one layer on one device are always held.
    """
    architecture = job.model.config
    layer_bytes = moments.item_bytes(len(survey.class_token), architecture.n_embd)
    targets = devices.choose(job.config.devices)
    if memory is None:
        available = environment.available_bytes()
        memory = _UNKNOWN if available is None else available // 2
    on_device = memory // 2
    if targets[0].platform != "cpu" and (free := devices.free_bytes(targets)) is not None:
        on_device = min(on_device, free // 2)
    layers = int(np.clip(on_device // layer_bytes, 1, architecture.n_layer + 1))
    targets = targets[: max(1, memory // (layers * layer_bytes) - 1)]
    return layers, tuple(Worker(one, devices.put(job.model.params, one)) for one in targets)


@functools.partial(jax.jit, static_argnums=0)
def _streams(
    architecture: types.Architecture,
    params: types.Params,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    return models.residuals(params, architecture, tokens, positions, segments)
