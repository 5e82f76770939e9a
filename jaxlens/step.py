"""The unit of computation: residuals, readout and rows of one step of fixed shape."""

from __future__ import annotations

import functools
from typing import Any

import jax

from jaxlens import job as jobs
from jaxlens import numerics, schema, types
from jaxlens.models import gpt2


def lower(
    job: jobs.Job, params: types.Params, unembed: types.Unembed, table: Any, batch: types.Step
) -> jax.stages.Lowered:
    """Traces a step for the device on which its parameters lie."""
    function = jax.jit(functools.partial(apply, job.static))
    with numerics.matmul_precision(job.config.lens.precision):
        return function.lower(params, unembed, table, batch)


def apply(
    static: jobs.Static,
    params: types.Params,
    unembed: types.Unembed,
    table: Any,
    batch: types.Step,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Residuals, readout, rows: all of a step that runs on the device.

    Returns:
        Values for the tallies, ``[row, layer]``, and the rows in their stored types.
    """
    streams = gpt2.residuals(
        params, static.architecture, batch.tokens, batch.positions, batch.segments
    )
    readout = static.read(streams, unembed, batch.references, table)
    values = {name: _rows(value, batch.order) for name, value in readout.present().items()}
    stored = {name: values[name].astype(dtype) for name, dtype in static.stored}
    values = {name: value for name, value in values.items() if name in schema.SUMMED}
    values["token"] = batch.tokens.reshape(-1)[batch.order]
    return values, stored


def _rows(value: jax.Array, order: jax.Array) -> jax.Array:
    """``[layer, batch, position, ...]`` to ``[row, layer, ...]`` in token-file order."""
    flat = value.reshape(value.shape[0], -1, *value.shape[3:])
    return flat[:, order].swapaxes(0, 1)
