"""The unit of computation: residuals, readout and rows of one step of fixed shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import models, schema, types
from jaxlens.lens import implementations, mesh, numerics, slicing, unembedding
from jaxlens.lens.options import Options
from jaxlens.sweep import resolve, resolve_lens
from jaxlens.tally import axes, definitions

_IN_FLIGHT = 3
"""Steps whose outputs a device may hold: computed, being fetched, being computed."""


@dataclass(frozen=True)
class StepConfig:
    """What a compiled step closes over; hashable.

    Attributes:
        architecture: Of the model.
        request: What the lens reads.
        implementation: Which lens.
        residuals: Type in which the residual streams are handed to the lens.
        stored: Stored type of each row that needs the model.
        tallies: Set of tallies that the values are for.
    """

    architecture: types.Architecture
    request: Options
    implementation: str
    residuals: str
    stored: tuple[tuple[str, str], ...]
    tallies: str = "basic"

    @property
    def tallied(self) -> tuple[str, ...]:
        """Quantities that the tallies are made from."""
        measures = axes.MEASURES if self.tallies in definitions.STUDY_EDITIONS else ()
        needed = definitions.QUANTITIES[self.tallies]
        return tuple(dict.fromkeys((*schema.SUMMED, *measures, *needed)))

    def read(
        self,
        streams: jax.Array,
        unembed: types.Unembed,
        references: types.References,
        tiles: unembedding.TiledUnembedding | None,
    ) -> types.Readout:
        """Reads the streams with the implementation of the run."""
        read = implementations.IMPLEMENTATIONS[self.implementation]
        prepared = () if tiles is None else (tiles,)
        return read(streams, unembed, references, self.request, *prepared)

    def tile_unembedding(self, unembed: types.Unembed) -> unembedding.TiledUnembedding | None:
        """The unembedding as the lens wants it; None for the reference lens."""
        if self.implementation == "reference":
            return None
        return unembedding.tile_unembedding(unembed, self.request)


def step_config(resolved: resolve.Resolved) -> StepConfig:
    """What a step of a run computes."""
    config, architecture = resolved.config, resolved.architecture
    lens, profile = config.lens, config.store.rows
    request = resolve_lens.request(config)
    assert lens.implementation is not None, "resolve chooses one"
    stored = tuple(
        (name, schema.stored_dtype(name, profile, architecture.vocab_size))
        for name in resolved.columns
        if name in schema.LAYERED or name in schema.PER_TOKEN
    )
    implementation, tallies = lens.implementation, config.store.tallies
    return StepConfig(architecture, request, implementation, lens.residuals, stored, tallies)


def unembed(resolved: resolve.Resolved, params: types.Params) -> types.Unembed:
    """Decoder and head of a run; temperatures are 1 until they are fitted."""
    lens, architecture = resolved.config.lens, resolved.architecture
    head = models.unembed(params, architecture, lens.decoder)
    temperatures = lens.temperatures or (1.0,) * (architecture.n_layer + 1)
    return dataclasses.replace(head, temperature=jnp.asarray(temperatures, jnp.float32))


def batch_shape(length: int, sequences: int) -> types.Step:
    """Shapes and types of a step's input, as `corpus.step_inputs.batch` makes it."""

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
    config: StepConfig, params: types.Params, unembed: types.Unembed, tiles: Any, batch: types.Step
) -> jax.stages.Lowered:
    """Traces a step for the device on which its parameters lie; shapes are enough."""
    with numerics.matmul_precision(config.request.precision):
        return _apply.lower(config, params, unembed, tiles, batch)


def scratch_bytes(compiled: jax.stages.Compiled) -> int:
    """What a step needs on its device beside the weights, by the compiler; 0 where it is silent."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    temporary = memory.temp_size_in_bytes
    if _platform(compiled) == "tpu":
        # The sum of all temporaries there, whenever they live; the peak has arguments and outputs.
        outside = memory.argument_size_in_bytes + memory.output_size_in_bytes
        temporary = min(temporary, max(0, memory.peak_memory_in_bytes - outside))
    return int(temporary + _IN_FLIGHT * memory.output_size_in_bytes)


def _platform(compiled: jax.stages.Compiled) -> str:
    sharding = jax.tree.leaves(compiled.output_shardings)[0]
    return next(iter(sharding.device_set)).platform


def device_bytes(compiled: jax.stages.Compiled) -> int:
    """The same with weights and input."""
    memory = compiled.memory_analysis()
    return scratch_bytes(compiled) + (0 if memory is None else int(memory.argument_size_in_bytes))


def apply(
    config: StepConfig,
    params: types.Params,
    unembed: types.Unembed,
    tiles: Any,
    batch: types.Step,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Residuals, readout, rows: all of a step that runs on the device, or on those that share it.

    Returns:
        Values for the tallies, ``[row, layer]``, and the rows in their stored types.
    """
    with mesh.context(config.request.parts):
        streams = models.residuals(
            params,
            config.architecture,
            batch.tokens,
            batch.positions,
            batch.segments,
            dtype=config.residuals,
        )
    readout = config.read(streams, unembed, batch.references, tiles)
    values = {name: _rows(value, batch.order) for name, value in readout.present().items()}
    of_token = {
        "token": batch.tokens,
        "surprisal": _surprisal(readout.logp_next, batch),
        "embedding_norm": _norms(unembed, batch.tokens),
    }
    values |= {name: value.reshape(-1)[batch.order] for name, value in of_token.items()}
    stored = {name: values[name].astype(dtype) for name, dtype in config.stored}
    tallied = {name: values[name] for name in (*config.tallied, "token") if name in values}
    if config.tallies in definitions.STUDY_EDITIONS:
        tallied |= {name: values[name] for name in schema.PER_TOKEN}
        tallied["final_token"] = values["top_id"][:, -1, 0]
    with mesh.context(config.request.parts):
        return mesh.constrain((tallied, stored))


_apply = jax.jit(apply, static_argnums=0)


def _surprisal(logp_next: jax.Array | None, batch: types.Step) -> jax.Array:
    """What the last layer said of each token at the position before; NaN where there is none."""
    assert logp_next is not None, "the lens of a step always reads logp_next"
    before = jnp.pad(logp_next[-1, :, :-1], ((0, 0), (1, 0)), constant_values=np.nan)
    return jnp.where(batch.positions > 0, -before, jnp.float32(np.nan))


def _norms(unembed: types.Unembed, tokens: jax.Array) -> jax.Array:
    """Norms of centred embeddings; what all share, no softmax over a tied head can see."""
    embedding, scale = unembed.token_embedding, unembed.embedding_scale
    mean = embedding.astype(jnp.float32).mean(0)
    rows = slicing.rows(embedding, tokens).astype(jnp.float32) - mean[None, None]
    norms = jnp.sqrt(jnp.square(rows).sum(-1))
    return norms if scale == 1.0 else norms * np.float32(scale)


def _rows(value: jax.Array, order: jax.Array) -> jax.Array:
    """``[layer, batch, position, ...]`` to ``[row, layer, ...]`` in token-file order."""
    flat = value.reshape(value.shape[0], -1, *value.shape[3:])
    return flat[:, order].swapaxes(0, 1)
