"""The unembedding as the tiled lens reads it: centred unless it is capped, rounded, in tiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import mesh, numerics, online, slicing, tuning
from jaxlens.lens.options import Options

Tile = tuple[jax.Array, jax.Array, jax.Array | None]
"""First column, weight and bias, of one tile or stacked."""

State = TypeVar("State")


@struct.dataclass
class TiledUnembedding:
    """The unembedding in tiles of one width.

    Attributes:
        weight: Zero in the padding.
        bias: The head's bias, centred as the weight is, and `online.PADDING_LOGIT` in the padding;
            None where there is neither, so that no time is lost on it.
        vocab_size: Real columns.
        parts: Devices that share the tiles, each of which has as many.
        softcap: See ``types.Unembed``; tiles are centred where there is none.
    """

    weight: Float[types.Array, "n_tiles tile embed"]
    bias: Float[types.Array, "n_tiles tile"] | None
    vocab_size: int = struct.field(pytree_node=False)
    parts: int = struct.field(pytree_node=False, default=1)
    softcap: float | None = struct.field(pytree_node=False, default=None)

    @property
    def flat_bias(self) -> Float[Array, " column"] | None:
        """The bias of all columns."""
        return None if self.bias is None else self.bias.reshape(-1)

    @property
    def stacked(self) -> Tile:
        """All tiles, to scan over."""
        return self.column, self.weight, self.bias

    @property
    def column(self) -> Int[Array, " n_tiles"]:
        """First column of each tile."""
        n_tiles, tile, _ = self.weight.shape
        return jnp.arange(n_tiles, dtype=jnp.int32) * tile


def scan(body: Callable[[State, Tile], State], start: State, stacked: Tile) -> State:
    """The state after ``body`` has seen one tile after the other."""

    def one(state: State, number: jax.Array) -> tuple[State, None]:
        return body(state, slicing.entry(stacked, number)), None

    numbers = jnp.arange(stacked[1].shape[0], dtype=jnp.int32)
    return jax.lax.scan(one, start, numbers)[0]


@functools.partial(jax.jit, static_argnums=1)
def tile_unembedding(unembed: types.Unembed, options: Options) -> TiledUnembedding:
    """Centres, pads and tiles the unembedding; once a run, not once a step.

    No softmax or rank depends on the centre, but a cap does: with one nothing is centred.
    """
    vocab_size, embed = unembed.weight.shape
    parts = options.parts
    default = tuning.choose_tile(vocab_size, unembed.n_layer or 1, None, parts)
    tile = min(options.tile or default, vocab_size)
    padding = -vocab_size % (tile * parts)

    dtype, cap = numerics.operand_dtype(options.precision), unembed.softcap
    arrange = _arrange if parts == 1 else functools.partial(_arrange_shares, parts)
    weight = arrange(cap is None, jnp.asarray(unembed.weight), padding, dtype).reshape(
        -1, tile, embed
    )
    bias = unembed.output_bias
    if bias is None and not padding:
        return TiledUnembedding(weight, None, vocab_size, parts, cap)
    bias = jnp.zeros(vocab_size) if bias is None else jnp.asarray(bias)
    bias = bias.astype(jnp.float32)
    bias = bias - bias.mean(keepdims=True) if cap is None else bias
    bias = jnp.pad(bias, (0, padding), constant_values=online.PADDING_LOGIT).reshape(-1, tile)
    with mesh.context(parts):
        weight, bias = mesh.constrain((weight, bias), 0)
    return TiledUnembedding(weight, bias, vocab_size, parts, cap)


def _arrange(
    centred: bool, weight: Float[Array, "vocab embed"], padding: int, dtype: Any
) -> Float[Array, "column embed"]:
    weight = weight.astype(jnp.float32)
    weight = (weight - weight.mean(0, keepdims=True) if centred else weight).astype(dtype)
    return jnp.pad(weight, ((0, padding), (0, 0)))


def _arrange_shares(
    parts: int, centred: bool, weight: Float[Array, "vocab embed"], padding: int, dtype: Any
) -> Float[Array, "column embed"]:
    """The same on devices that hold some entries of all rows, and get all entries of some rows."""
    vocab_size = weight.shape[0]
    columns = (vocab_size + padding) // parts

    def one(weight: jax.Array) -> jax.Array:
        mean = weight.astype(jnp.float32).mean(0)
        mean = jax.lax.all_gather(mean, mesh.AXIS, tiled=True)
        mean = mean if centred else jnp.zeros_like(mean)
        weight = jnp.pad(weight, ((0, padding), (0, 0)))
        weight = jax.lax.all_to_all(weight, mesh.AXIS, split_axis=0, concat_axis=1, tiled=True)
        column = jax.lax.axis_index(mesh.AXIS) * columns + jnp.arange(columns)
        is_real = (column < vocab_size)[:, None]
        return jnp.where(is_real, weight.astype(jnp.float32) - mean[None], 0.0).astype(dtype)

    over, before, after = mesh.over(parts), PartitionSpec(None, mesh.AXIS), PartitionSpec(mesh.AXIS)
    return jax.shard_map(one, mesh=over, in_specs=before, out_specs=after, check_vma=False)(weight)


def logits(
    rows: Float[Array, "layer token embed"],
    weight: Float[Array, "column embed"],
    bias: Float[Array, " column"] | None,
    softcap: float | None = None,
) -> Float[Array, "layer token column"]:
    """Logits of the rows in the columns of a tile, capped."""
    contract = (((rows.ndim - 1,), (1,)), ((), ()))
    z = jax.lax.dot_general(rows, weight, contract, preferred_element_type=jnp.float32)
    # One set of logits for all reductions: fused into each of them, a small product would be
    # rounded differently each time, and a maximum not found again.
    if softcap is not None:
        z = z if bias is None else z + bias[None, None]
        return jax.lax.optimization_barrier(capped(z, softcap))
    z = jax.lax.optimization_barrier(z)
    return z if bias is None else _biased(z, bias)


def _biased(
    z: Float[Array, "layer token column"], bias: Float[Array, " column"]
) -> Float[Array, "layer token column"]:
    def written(z: jax.Array, bias: jax.Array) -> jax.Array:
        # Without a bias of the head only the last tile has any, in its padding.
        biased = jax.lax.cond(bias.any(), _add, lambda z, bias: z, z, bias)
        return jax.lax.optimization_barrier(biased)

    return tuning.by_platform(
        lambda chosen: written if chosen.keeps_biased_logits else _add, z, bias
    )


def _add(z: jax.Array, bias: jax.Array) -> jax.Array:
    return z + bias[None, None]


def capped(z: Float[Array, "*any"], softcap: float) -> Float[Array, "*any"]:
    """Logits under a cap; those of the padding stay below all others."""
    return jnp.where(z > online.PADDING_LOGIT / 2, numerics.softcap(z, softcap), z)
