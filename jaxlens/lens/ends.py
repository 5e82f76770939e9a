"""The end layers of the tiled lens: the embedding and the last, whose logits a block keeps.

They give the model's own prediction, which is a reference token of every other layer, and both
distributions that divergences need.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlens.lens import online, ranks, tuning, unembedding
from jaxlens.lens.options import Options

Add = Callable[[online.Running, jax.Array, jax.Array], online.Running]
"""Adds a tile of logits, whose first column is given, to the state."""


def read(
    rows: Float[Array, "2 token embed"],
    reference_logits: Float[Array, "2 token reference"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, "2"] | None,
    options: Options,
) -> tuple[online.Running, Float[Array, "2 token column"]]:
    """The two end layers: their state, and all their logits, see `logits`."""
    is_tempered = inverse_temperature is not None
    start = online.start(
        2, rows.shape[1], reference_logits.shape[-1], options.top_k, is_tempered
    )._replace(n_greater=ranks.start(reference_logits, ids))

    def add(running: online.Running, z: jax.Array, column: jax.Array) -> online.Running:
        return online.update(running, z, column, reference_logits, ids, inverse_temperature)[0]

    return tuning.by_platform(
        lambda chosen: functools.partial(
            _scan if chosen.scans_ends else _at_once, add, tiles.softcap
        ),
        *(start, rows, tiles.stacked),
    )


def _scan(
    add: Add,
    softcap: float | None,
    start: online.Running,
    rows: jax.Array,
    tiles: unembedding.Tile,
) -> tuple[online.Running, jax.Array]:
    def body(
        state: tuple[online.Running, jax.Array], tile: unembedding.Tile
    ) -> tuple[online.Running, jax.Array]:
        running, end_logits = state
        column, weight, bias = tile
        z = unembedding.logits(rows, weight, bias, softcap)
        end_logits = jax.lax.dynamic_update_slice_in_dim(end_logits, z, column, 2)
        return add(running, z, column), end_logits

    n_tiles, width, _ = tiles[1].shape
    nothing = jnp.zeros((2, rows.shape[1], n_tiles * width), jnp.float32)
    return unembedding.scan(body, (start, nothing), tiles)


def _at_once(
    add: Add,
    softcap: float | None,
    start: online.Running,
    rows: jax.Array,
    tiles: unembedding.Tile,
) -> tuple[online.Running, jax.Array]:
    column, weight, bias = tiles
    weight = weight.reshape(-1, weight.shape[-1])
    if softcap is not None:
        flat = None if bias is None else bias.reshape(-1)
        z = unembedding.logits(rows, weight, flat, softcap)
        return add(start, z, column[0]), z
    kept = unembedding.logits(rows, weight, None)
    z = kept if bias is None else kept + bias.reshape(1, 1, -1)
    return add(start, z, column[0]), kept


def count_above(
    first_logits: Float[Array, "token column"],
    at_final: Float[Array, " token"],
    final: Int[Array, " token"],
) -> Int[Array, " token"]:
    """Logits of the first end layer above that of the final token, whose column is left out."""
    columns = jnp.arange(first_logits.shape[-1], dtype=jnp.int32)[None]
    above = (first_logits > at_final[:, None]) & (columns != final[:, None])
    return above.sum(-1, dtype=jnp.int32)


def add_final(end: online.Running, above: Int[Array, " token"]) -> online.Running:
    """Adds the final token to the end layers' references, now that it is known.

    At the last layer nothing is above it, by construction.
    """
    both = jnp.stack([above, jnp.zeros_like(above)])[..., None]
    return end._replace(n_greater=jnp.concatenate([end.n_greater, both], -1))


def logits(kept: jax.Array, bias: jax.Array | None, softcap: float | None = None) -> jax.Array:
    """Logits of the end layers as `read` keeps them, or of a tile of them, with their bias.

    Capped ones are kept with it.
    """
    if bias is None or softcap is not None:
        return kept

    def make(chosen: tuning.Tuning) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return _with_bias if chosen.keeps_biased_logits else _add_bias

    return tuning.by_platform(make, kept, bias)


def _with_bias(z: jax.Array, bias: jax.Array) -> jax.Array:
    return z


def _add_bias(z: jax.Array, bias: jax.Array) -> jax.Array:
    return z + bias[None, None]


def tile(
    end_logits: Float[Array, "2 token column"],
    tile: unembedding.Tile,
    softcap: float | None = None,
) -> Float[Array, "2 token tile"]:
    """Logits of the end layers in one tile."""
    column, weight, bias = tile
    kept = jax.lax.dynamic_slice_in_dim(end_logits, column, len(weight), 2)
    return logits(kept, bias, softcap)
