"""Workers take turns with the steps of a sweep; each is a device with weights and a compiled step.

Where several devices share a model, they are one worker together.

Which worker computes a step decides nothing: all of them run the same program of the same shape,
and totals are added as integers. On CPUs a worker is a core. A core that works alone on a step does
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
from jaxlens.sweep import batch_size, compilation_cache, devices, environment, step
from jaxlens.sweep.job import Job
from jaxlens.tally import definitions, update


@dataclass(frozen=True, eq=False)
class Worker:
    """A device, or a group that shares the model, with everything needed to compute steps.

    Attributes:
        group: Where everything lies; the totals lie on its leading device.
        weights: Parameters, unembedding and its tiles.
        step: The compiled step.
        add: The compiled update of the totals.
        totals: Names, shapes and types of the totals.
        lookup: See ``update.tables``.
    """

    group: devices.Group
    weights: tuple[types.Params, types.Unembed, Any]
    step: jax.stages.Compiled
    add: jax.stages.Compiled
    totals: dict[str, jax.ShapeDtypeStruct]
    lookup: update.Tables

    def zero_totals(self) -> update.Totals:
        """Empty totals on the leading device."""
        return update.zeros(self.totals, self.group.lead)

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
        values, rows = self.group.lead_of(self.step(*self.weights, batch))
        with update.wide():
            return rows, self.add(totals, values | dict(columns), batch.count, self.lookup)


def compile_workers(job: Job, tallies: tuple[definitions.Tally, ...] | None = None) -> list[Worker]:
    """Compiles the step, whose shape is that of every step of the run, for each device.

    Args:
        job: Sweep.
        tallies: What is counted; the tallies of the run by default.

    Raises:
        ConfigError: There are fewer devices than were asked for, or a step does not fit them.
    """
    batch = step.batch_shape(job.plan.length, job.plan.step_sequences)
    targets = devices.groups(job.config)
    counted = definitions.TALLIES[job.config.store.tallies] if tallies is None else tallies
    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
        lookup = job.lookup()
        workers = list(pool.map(functools.partial(_compile, job, batch, lookup, counted), targets))
    compilation_cache.seal(job.programs)
    environment.release_memory()
    needed = max(step.scratch_bytes(worker.step) for worker in workers)
    limit = devices.free_bytes([device for group in targets for device in group.devices])
    if limit is not None and needed > limit:
        raise batch_size.too_large(needed, limit)
    return workers


def _compile(
    job: Job,
    batch: types.Step,
    lookup: update.Tables,
    tallies: tuple[definitions.Tally, ...],
    group: devices.Group,
) -> Worker:
    architecture = job.resolved.architecture
    weights = group.put((job.model.params, job.unembed, job.tiles))
    lookup = devices.put(lookup, group.lead)
    lowered = step.lower(job.step_config, *weights, group.shapes(batch))
    values = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype)
        for name, value in lowered.out_info[0].items()
    }
    values |= job.tally_shapes()
    totals = update.shapes(tallies, architecture.n_layer + 1, architecture.vocab_size)
    zeros = update.zeros(totals, group.lead)
    with batch_size.compiling_for(group.lead):
        add = update.compile_update(tallies, zeros, values, lookup)
        return Worker(group, weights, lowered.compile(), add, totals, lookup)
