"""The unit of computation: residuals, readout and rows of one step of fixed shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxlens import config as configs
from jaxlens import numerics, schema, settle, types
from jaxlens.lens import reference, tables, tiled
from jaxlens.lens.options import Options
from jaxlens.models import gpt2

_IN_FLIGHT = 3
"""Steps whose outputs a device may hold: computed, being fetched, being computed."""


@dataclass(frozen=True)
class Static:
    """What a compiled step closes over; hashable.

    Attributes:
        architecture: Of the model.
        request: What the lens reads.
        implementation: Which lens.
        residuals: Type in which the residual streams are handed to the lens.
        stored: Stored type of each row that the lens provides.
    """

    architecture: types.Architecture
    request: Options
    implementation: str
    residuals: str
    stored: tuple[tuple[str, str], ...]

    def read(
        self,
        streams: jax.Array,
        unembed: types.Unembed,
        references: types.References,
        table: tables.Table | None,
    ) -> types.Readout:
        """The lens that the run chose."""
        if self.implementation == "reference":
            return reference.read(streams, unembed, references, self.request)
        return tiled.read(streams, unembed, references, self.request, table)

    def prepare(self, unembed: types.Unembed) -> tables.Table | None:
        """The unembedding as the lens wants it; None for the reference lens."""
        if self.implementation == "reference":
            return None
        return tables.prepare(unembed, self.request)


def static(config: configs.RunConfig, architecture: types.Architecture) -> Static:
    """What a settled configuration computes."""
    lens, profile = config.lens, config.store.rows
    # All of `full` whatever the rows are: the tallies count every one.
    wanted = {*schema.FULL, *config.store.quantities}
    request = Options(
        quantities=tuple(name for name in schema.LAYERED if name in wanted),
        top_k=lens.top_k,
        precision=lens.precision,
        tile=lens.tile,
        block=lens.block,
    )
    stored = tuple(
        (name, schema.stored_dtype(name, profile, architecture.vocab_size))
        for name in settle.rows(config)
        if name in schema.LAYERED
    )
    return Static(architecture, request, lens.implementation, lens.residuals, stored)


def batch_shape(length: int, sequences: int) -> types.Step:
    """Shapes and types of a step's input, as `corpus.plan.batch` makes it."""

    def array(*shape: int, dtype: Any = np.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    grid = array(sequences, length)
    mask = array(sequences, length, dtype=np.bool_)
    return types.Step(
        tokens=grid,
        positions=grid,
        segments=grid,
        references=types.References(grid, grid, grid, grid, mask),
        order=array(sequences * length),
        count=array(),
    )


def lower(
    chosen: Static, params: types.Params, unembed: types.Unembed, table: Any, batch: types.Step
) -> jax.stages.Lowered:
    """Traces a step for the device on which its parameters lie; shapes are enough."""
    with numerics.matmul_precision(chosen.request.precision):
        return _apply.lower(chosen, params, unembed, table, batch)


def scratch_bytes(compiled: jax.stages.Compiled) -> int:
    """What a step needs on its device beside the weights, by the compiler; 0 where it is silent."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return int(memory.temp_size_in_bytes + _IN_FLIGHT * memory.output_size_in_bytes)


def device_bytes(compiled: jax.stages.Compiled) -> int:
    """The same with weights and input."""
    memory = compiled.memory_analysis()
    return scratch_bytes(compiled) + (0 if memory is None else int(memory.argument_size_in_bytes))


def apply(
    chosen: Static,
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
        params,
        chosen.architecture,
        batch.tokens,
        batch.positions,
        batch.segments,
        dtype=chosen.residuals,
    )
    readout = chosen.read(streams, unembed, batch.references, table)
    values = {name: _rows(value, batch.order) for name, value in readout.present().items()}
    stored = {name: values[name].astype(dtype) for name, dtype in chosen.stored}
    values = {name: value for name, value in values.items() if name in schema.SUMMED}
    values["token"] = batch.tokens.reshape(-1)[batch.order]
    return values, stored


_apply = jax.jit(apply, static_argnums=0)


def _rows(value: jax.Array, order: jax.Array) -> jax.Array:
    """``[layer, batch, position, ...]`` to ``[row, layer, ...]`` in token-file order."""
    flat = value.reshape(value.shape[0], -1, *value.shape[3:])
    return flat[:, order].swapaxes(0, 1)
