"""The passes of a probe: each takes some layers, whose moments fit in memory, from text to counts.

A pass runs the model over the training steps, fits, and runs it over the held-out steps. Where all
layers fit, one pass does. What was added is in checkpoints, so that a process that is killed costs
the work since the last one; neither passes nor kills change a bit of the result.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxlens import errors, interrupts, models, types
from jaxlens.files import publish
from jaxlens.lens import numerics
from jaxlens.store import probe_file
from jaxlens.sweep import preemption
from jaxlens.sweep.probe import checkpoint, data, discriminant, evaluate, moments
from jaxlens.sweep.probe.survey import Survey
from jaxlens.sweep.progress import Progress

T = TypeVar("T")

_MOMENTS, _EVALUATION = "moments.checkpoint", "evaluation.checkpoint"

logger = logging.getLogger("jaxlens")


class Side(NamedTuple):
    """Steps of training or held-out documents."""

    steps: Sequence[int]
    held_out: bool


@dataclass(frozen=True, eq=False)
class Work:
    """What all passes share.

    Attributes:
        corpus: Text of the run.
        survey: Steps and classes.
        spec_hash: Of the probe, which its checkpoints bear.
        layers_per_pass: Layers whose moments are held at once.
        progress: Receives updates.
        stop: Checked before every step.
        interval: Between checkpoints.
        done: Positions of this process, in its only entry.
    """

    corpus: data.Corpus
    survey: Survey
    spec_hash: str
    layers_per_pass: int
    progress: Progress | None
    stop: preemption.StopRequest
    interval: checkpoint.Interval
    done: list[int] = field(default_factory=lambda: [0])

    def advance(self, count: int) -> None:
        """``count`` more positions are computed."""
        self.done[0] += count
        if self.progress is not None:
            self.progress.advance(count)

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

    def streams(self, batch: types.Step) -> jax.Array:
        """All residual streams of a step."""
        model = self.corpus.job.model
        with numerics.matmul_precision(self.corpus.job.config.lens.precision):
            return _streams(
                model.config, model.params, batch.tokens, batch.positions, batch.segments
            )


@functools.partial(jax.jit, static_argnums=0)
def _streams(
    architecture: types.Architecture,
    params: types.Params,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    return models.residuals(params, architecture, tokens, positions, segments)


def run(work: Work) -> tuple[evaluate.Cells, int]:
    """Runs all passes, or those that are left.

    Returns:
        The evaluation of all layers, and the positions that this call computed.

    Raises:
        InterruptedRun: A stop was requested; what was added is in a checkpoint.
        NumericalError: A stream is not finite.
    """
    evaluation = evaluate.zeros(work.n_layers)
    state = _read(work, _EVALUATION, {}, {"evaluation": evaluation})
    first, stop, step = 0, 0, 0
    if state is None:
        evaluation = evaluate.zeros(work.n_layers)
    else:
        (first, stop), step = state["layers"], state["step"]
    finished = stop if step == len(work.survey.held_out) else first
    _begin_progress(work, finished)
    for start in range(finished, work.n_layers, work.layers_per_pass):
        layers = range(start, min(start + work.layers_per_pass, work.n_layers))
        if [layers.start, layers.stop] != [first, stop]:
            step = 0  # of other layers, where the limit of memory is another now
        totals, scale = _moments(work, layers)
        readers = _readers(work, layers, totals, scale)
        del totals
        _evaluate(work, layers, readers, evaluation, step)
    return evaluation, work.done[0]


def remove_checkpoints(run_dir: str | Path) -> None:
    """Removes what only an unfinished probe needs."""
    for name in (_MOMENTS, _EVALUATION):
        publish.remove(probe_file.path(run_dir, name))


def _begin_progress(work: Work, finished: int) -> None:
    """Counts the positions of all passes."""
    if work.progress is None:
        return
    counts = work.survey.counts
    positions = counts["training_positions"] + counts["held_out_positions"]
    passes = -(-(work.n_layers - finished) // work.layers_per_pass)
    before = -(-finished // work.layers_per_pass)
    work.progress.begin(positions * (before + passes), positions * before)


def _moments(work: Work, layers: range) -> tuple[moments.Totals, moments.Scale]:
    """The moments of all training steps, on the host."""
    job, surveyed = work.corpus.job, work.survey
    place = {"layers": [layers.start, layers.stop]}
    totals = moments.zeros(len(layers), len(surveyed.class_token), work.n_embd)
    scale = moments.no_scale(len(layers), work.n_embd)
    state = _read(work, _MOMENTS, place, totals._asdict() | scale._asdict())
    if state is None:
        totals = moments.zeros(len(layers), len(surveyed.class_token), work.n_embd)
        batch, rows = work.corpus.rows(surveyed.training[0], held_out=False)
        scale = moments.scale(work.streams(batch)[layers.start : layers.stop], rows.slot)

    def add(totals: moments.Totals, streams: jax.Array, rows: data.Rows) -> moments.Totals:
        here = streams[layers.start : layers.stop]
        return moments.add(totals, here, scale, rows, surveyed.labels(rows.token))

    def save(totals: moments.Totals, step: int) -> None:
        _write(work, _MOMENTS, place | {"step": step}, totals._asdict() | scale._asdict())

    done = 0 if state is None else state["step"]
    totals = _add_steps(work, Side(surveyed.training, False), done, totals, add, save)
    if int(totals.missing):
        raise errors.NumericalError(
            f"{int(totals.missing):,} values of the residual streams are not finite",
            f"check the weights: {job.config.model.path}",
        )
    return totals, scale


def _readers(
    work: Work, layers: range, totals: moments.Totals, scale: moments.Scale
) -> evaluate.Readers:
    """Fits the probes of some layers, and publishes the directions of the own token."""
    surveyed = work.survey
    n_targets, n_classes = surveyed.class_count.shape
    weight = np.zeros((len(layers), n_targets, n_classes, work.n_embd), np.float32)
    bias = np.zeros((len(layers), n_targets, n_classes), np.float32)
    for i, layer in enumerate(layers):
        for target in range(n_targets):
            fitted = discriminant.fit(
                moments.of_layer(totals, i, target),
                surveyed.class_count[target],
                surveyed.is_candidate[target],
            )
            weight[i, target], bias[i, target] = fitted.weight, fitted.bias
            if target == data.OWN:
                unit, reference = np.float64(scale.unit[i]), np.asarray(scale.reference[i])
                directions = probe_file.Directions(
                    class_token=surveyed.class_token,
                    mean=np.asarray(reference + unit * fitted.mean, np.float32),
                    discriminant=np.asarray(fitted.weight / unit, np.float32),
                    centre=np.asarray(reference + unit * fitted.centre, np.float32),
                )
                image = probe_file.directions_image(directions, layer, work.spec_hash)
                publish.publish(probe_file.directions_path(work.out, layer), image)
    unembed = evaluate.of_classes(work.corpus.job.unembed, surveyed.class_token)
    return evaluate.Readers(weight, bias, scale, np.asarray(layers, np.int32), unembed)


def _evaluate(
    work: Work, layers: range, readers: evaluate.Readers, evaluation: evaluate.Cells, done: int
) -> None:
    """Adds the held-out steps to the layers' part of the evaluation."""
    precision = work.corpus.job.config.lens.precision
    readers = jax.device_put(readers)
    here = evaluation[:, layers.start : layers.stop]
    if not done:
        here[...] = 0

    def add(totals: evaluate.Cells, streams: jax.Array, rows: data.Rows) -> evaluate.Cells:
        label = work.survey.labels(rows.token)
        return evaluate.add(totals, streams, readers, rows, label, precision)

    def save(totals: evaluate.Cells, step: int) -> None:
        here[...] = totals
        state = {"layers": [layers.start, layers.stop], "step": step}
        _write(work, _EVALUATION, state, {"evaluation": evaluation})

    _add_steps(work, Side(work.survey.held_out, True), done, here.copy(), add, save)


def _add_steps(
    work: Work,
    side: Side,
    done: int,
    totals: T,
    add: Callable[[T, jax.Array, data.Rows], T],
    save: Callable[[T, int], None],
) -> T:
    """Adds steps from the last checkpoint on, and ends with a checkpoint.

    Args:
        work: Of the probe.
        side: Steps, and whether they are held out.
        done: Steps that the totals hold.
        totals: On the host.
        add: Adds the rows of a step, and may use the buffers of the totals again.
        save: Writes a checkpoint of totals on the host.

    Returns:
        The totals on the host.
    """
    state: tuple[T, int] = totals, done
    before: Any = None

    def write() -> T:
        began = time.monotonic()
        host = jax.device_get(state[0])
        save(host, state[1])
        work.interval.written(began)
        return host

    with work.stop.deferred():
        try:
            for number in side.steps[done:]:
                if work.stop.requested:
                    break
                batch, rows = work.corpus.rows(number, side.held_out)
                streams = work.streams(batch)
                # At most two steps are under way.
                jax.block_until_ready(before)
                before = streams
                with interrupts.shielded():  # the totals that were and those that are as one
                    state = add(state[0], streams, rows), state[1] + 1
                work.advance(len(rows.slot))
                if work.interval.is_due():
                    write()
        except KeyboardInterrupt:
            with contextlib.suppress(RuntimeError):  # buffers that were given away
                write()
            raise
        host = write()
    if work.stop.requested and state[1] < len(side.steps):
        raise work.stop.interruption()
    return host


def _read(
    work: Work, name: str, known: dict[str, Any], arrays: dict[str, Any]
) -> dict[str, Any] | None:
    path = probe_file.path(work.out, name)
    return checkpoint.read(path, known | {"spec_hash": work.spec_hash}, arrays)


def _write(work: Work, name: str, state: dict[str, Any], arrays: dict[str, Any]) -> None:
    path = probe_file.path(work.out, name)
    checkpoint.write(path, state | {"spec_hash": work.spec_hash}, arrays)
