"""Devices that take turns with the steps of a sweep; each has the weights and a compiled step.

Which device computes a step decides nothing: all of them run the same program of the same shape,
and totals are added as integers. On CPUs a lane is a core. A core that works alone on a step does
more in the same time than all of them together on one, since the tiles of the lens are small.
"""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass
from typing import Any

import jax

from jaxlens import devices, schema, types
from jaxlens import job as jobs
from jaxlens import step as steps
from jaxlens.corpus import tokenfile
from jaxlens.tally import exact


@dataclass(frozen=True, eq=False)
class Lane:
    """A device with all it needs.

    Attributes:
        device: Where everything lies.
        weights: Parameters, unembedding and table of the lens.
        compiled: The step.
        tallies: What is counted.
        lookup: See ``exact.tables``.
        sizes: Layers and vocabulary.
    """

    device: jax.Device
    weights: tuple[types.Params, types.Unembed, Any]
    compiled: jax.stages.Compiled
    tallies: tuple[schema.Tally, ...]
    lookup: exact.Tables
    sizes: tuple[int, int]

    def begin(self) -> exact.Totals:
        """Totals of nothing."""
        with jax.default_device(self.device):
            return exact.init(self.tallies, *self.sizes)

    def run(
        self, batch: types.Step, totals: exact.Totals
    ) -> tuple[dict[str, jax.Array], exact.Totals]:
        """Dispatches a step and the update of the totals, whose buffers are used again.

        Returns:
            Rows in their stored types, and the new totals.
        """
        values, rows = self.compiled(*self.weights, batch)
        return rows, exact.update(self.tallies, totals, values, batch.count, self.lookup)


def make(job: jobs.Job, tokens: tokenfile.TokenFile) -> list[Lane]:
    """Compiles the step, whose shape is that of every step of the run, for each device.

    Raises:
        ConfigError: There are fewer devices than were asked for.
    """
    batch, _ = job.batch(0, tokens)
    architecture = job.static.architecture
    chosen = devices.choose(job.config.devices)
    weights = [
        devices.place((job.model.params, job.unembed, job.table), device) for device in chosen
    ]
    lowered = [steps.lower(job, *each, batch) for each in weights]
    with concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
        compiled = list(pool.map(jax.stages.Lowered.compile, lowered))
    lookup = exact.tables(architecture.vocab_size)
    return [
        Lane(
            device=device,
            weights=each,
            compiled=program,
            tallies=schema.TALLIES[job.config.store.tallies],
            lookup=devices.place(lookup, device),
            sizes=(architecture.n_layer + 1, architecture.vocab_size),
        )
        for device, each, program in zip(chosen, weights, compiled, strict=True)
    ]
