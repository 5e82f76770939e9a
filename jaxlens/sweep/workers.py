"""Devices that take turns with the steps of a sweep; each has the weights and a compiled step.

Which device computes a step decides nothing: all of them run the same program of the same shape,
and totals are added as integers. On CPUs a lane is a core. A core that works alone on a step does
more in the same time than all of them together on one, since the tiles of the lens are small.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxlens import types
from jaxlens.sweep import batch_size, compilation_cache, devices, environment
from jaxlens.sweep import job as jobs
from jaxlens.sweep import step as steps
from jaxlens.tally import definitions, update


@dataclass(frozen=True, eq=False)
class Lane:
    """A device with all it needs.

    Attributes:
        device: Where everything lies.
        weights: Parameters, unembedding and table of the lens.
        step: The compiled step.
        add: The compiled update of the totals.
        totals: Names, shapes and types of the totals.
        lookup: See ``exact.tables``.
    """

    device: jax.Device
    weights: tuple[types.Params, types.Unembed, Any]
    step: jax.stages.Compiled
    add: jax.stages.Compiled
    totals: dict[str, jax.ShapeDtypeStruct]
    lookup: update.Tables

    def begin(self) -> update.Totals:
        """Totals of nothing."""
        return update.zeros(self.totals, self.device)

    def run(
        self, batch: types.Step, columns: Mapping[str, np.ndarray], totals: update.Totals
    ) -> tuple[dict[str, jax.Array], update.Totals]:
        """Dispatches a step and the update of the totals, whose buffers are used again.

        Args:
            batch: Input of the step.
            columns: What the tallies need of the corpus, see ``Job.tally_columns``.
            totals: What was counted so far.

        Returns:
            Rows in their stored types, and the new totals.
        """
        values, rows = self.step(*self.weights, batch)
        with update.wide():
            return rows, self.add(totals, values | dict(columns), batch.count, self.lookup)


def make(job: jobs.Job) -> list[Lane]:
    """Compiles the step, whose shape is that of every step of the run, for each device.

    Raises:
        ConfigError: There are fewer devices than were asked for, or a step does not fit them.
    """
    batch = steps.batch_shape(job.plan.length, job.plan.step_sequences)
    chosen = devices.choose(job.config.devices)
    with concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
        lookup = job.lookup()
        made = list(pool.map(functools.partial(_make, job, batch, lookup), chosen))
    compilation_cache.seal(job.programs)
    environment.release_memory()
    needed, room = max(steps.scratch_bytes(lane.step) for lane in made), devices.room(chosen)
    if room is not None and needed > room:
        raise batch_size.too_large(needed, room)
    return made


def _make(job: jobs.Job, batch: types.Step, lookup: update.Tables, device: jax.Device) -> Lane:
    vocab_size = job.static.architecture.vocab_size
    tallies = definitions.TALLIES[job.config.store.tallies]
    weights = devices.place((job.model.params, job.unembed, job.table), device)
    lookup = devices.place(lookup, device)
    lowered = steps.lower(job.static, *weights, batch)
    values, _ = lowered.out_info
    values = values | job.tally_shapes()
    totals = update.shapes(tallies, job.static.architecture.n_layer + 1, vocab_size)
    zeros = update.zeros(totals, device)
    add = update.compile_update(tallies, zeros, values, lookup)
    return Lane(device, weights, lowered.compile(), add, totals, lookup)
