"""The passes of a probe: each takes some layers, whose moments fit in memory, from text to counts.

A pass runs the model over the training steps, fits, and runs it over the held-out steps. Where all
layers fit, one pass does. What was added is in checkpoints, so that a process that is killed costs
the work since the last one; neither passes nor kills change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from jaxlens import errors
from jaxlens.files import publish
from jaxlens.store import directions_file, probe_file
from jaxlens.sweep import devices
from jaxlens.sweep.probe import data, discriminant, evaluate, moments, steps
from jaxlens.sweep.probe.work import Work, Worker

_MOMENTS, _EVALUATION = "moments.checkpoint", "evaluation.checkpoint"


def run(work: Work) -> tuple[evaluate.Cells, int]:
    """Runs all passes, or those that are left.

    Returns:
        The evaluation of all layers, and the positions that this call computed.

    Raises:
        InterruptedRun: A stop was requested; what was added is in a checkpoint.
        NumericalError: A stream is not finite.
    """
    evaluation = evaluate.zeros(work.n_layers)
    state = work.read_checkpoint(_EVALUATION, {}, {"evaluation": evaluation})
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


def make_directions(work: Work, lacking: Iterable[int]) -> None:
    """Fits the probes of some layers of a finished probe again, and publishes their directions.

    Args:
        work: That of the probe.
        lacking: Numbers of the layers, in rising order.

    Raises:
        JaxlensError: See `run`.
    """
    ranges = _ranges(lacking, work.layers_per_pass)
    if work.progress is not None:
        work.progress.begin(work.survey.counts["training_positions"] * len(ranges), 0)
    for layers in ranges:
        _readers(work, layers, *_moments(work, layers))
    remove_checkpoints(work.out)


def _ranges(layers: Iterable[int], longest: int) -> list[range]:
    """Rising numbers as ranges without gaps."""
    ranges: list[range] = []
    for layer in layers:
        if ranges and ranges[-1].stop == layer and len(ranges[-1]) < longest:
            ranges[-1] = range(ranges[-1].start, layer + 1)
        else:
            ranges.append(range(layer, layer + 1))
    return ranges


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
    state = work.read_checkpoint(_MOMENTS, place, totals._asdict() | scale._asdict())
    if state is None:
        totals = moments.zeros(len(layers), len(surveyed.class_token), work.n_embd)
        batch, rows = work.corpus.rows(surveyed.training[0], held_out=False)
        scale = moments.scale(
            work.streams(batch, work.workers[0])[layers.start : layers.stop], rows.slot
        )

    def add(
        totals: moments.Totals, streams: jax.Array, rows: data.Rows, worker: Worker
    ) -> moments.Totals:
        here = streams[layers.start : layers.stop]
        return moments.add(totals, here, scale, rows, surveyed.labels(rows.token))

    def save(totals: moments.Totals, step: int) -> None:
        work.write_checkpoint(_MOMENTS, place | {"step": step}, totals._asdict() | scale._asdict())

    done = 0 if state is None else state["step"]
    totals = steps.add_steps(work, steps.Side(surveyed.training, False), done, totals, add, save)
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
                directions = directions_file.Directions(
                    class_token=surveyed.class_token,
                    mean=np.asarray(reference + unit * fitted.mean, np.float32),
                    discriminant=np.asarray(fitted.weight / unit, np.float32),
                    centre=np.asarray(reference + unit * fitted.centre, np.float32),
                )
                image = directions_file.image(directions, layer, work.spec_hash)
                publish.publish(probe_file.directions_path(work.out, layer), image)
    unembed = evaluate.of_classes(work.corpus.job.unembed, surveyed.class_token)
    return evaluate.Readers(weight, bias, scale, np.asarray(layers, np.int32), unembed)


def _evaluate(
    work: Work, layers: range, readers: evaluate.Readers, evaluation: evaluate.Cells, done: int
) -> None:
    """Adds the held-out steps to the layers' part of the evaluation."""
    precision = work.corpus.job.config.lens.precision
    placed = {worker: devices.put(readers, worker.device) for worker in work.workers}
    here = evaluation[:, layers.start : layers.stop]
    if not done:
        here[...] = 0

    def add(
        totals: evaluate.Cells, streams: jax.Array, rows: data.Rows, worker: Worker
    ) -> evaluate.Cells:
        label = work.survey.labels(rows.token)
        return evaluate.add(totals, streams, placed[worker], rows, label, precision)

    def save(totals: evaluate.Cells, step: int) -> None:
        here[...] = totals
        state = {"layers": [layers.start, layers.stop], "step": step}
        work.write_checkpoint(_EVALUATION, state, {"evaluation": evaluation})

    steps.add_steps(work, steps.Side(work.survey.held_out, True), done, here.copy(), add, save)
