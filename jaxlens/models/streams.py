"""One scan over the blocks of a model that keeps every residual stream."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlens import types
from jaxlens.lens import mesh, slicing
from jaxlens.models import patches

Block = Callable[[types.Params, jax.Array, jax.Array], jax.Array]
"""From one block's weights, the stream before it and its number (float32) to the stream after."""


def collect(
    block: Block,
    blocks: types.Params,
    embedded: Float[Array, "batch position embed"],
    n_layer: int,
    dtype: str,
    patch: patches.Patch | None,
) -> Float[Array, "layer batch position embed"]:
    """The embedding and the output of each block.

    Args:
        block: Computes one block.
        blocks: Weights of all blocks, stacked.
        embedded: Float32, as the blocks hand it on among themselves.
        n_layer: Blocks.
        dtype: Of what is returned.
        patch: See ``models.residuals``.

    Returns:
        ``layer`` counts ``n_layer + 1``.
    """
    embedded = mesh.constrain(embedded)
    numbers = jnp.arange(n_layer, dtype=jnp.float32)

    # Every stream is written to its place in one array: outputs of a scan and the last stream would
    # have to be copied together, the largest arrays of a step.
    streams = mesh.constrain(jnp.zeros((n_layer + 1, *embedded.shape), dtype))

    def body(
        carry: tuple[jax.Array, jax.Array], number: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        stream, streams = carry
        index = number.astype(jnp.int32)
        weights = slicing.entry(blocks, index)
        if patch is not None:
            stream = patch(index, stream)
        streams = jax.lax.dynamic_update_index_in_dim(streams, stream.astype(dtype), index, 0)
        return mesh.constrain((block(weights, stream, number), streams)), None

    (last, streams), _ = jax.lax.scan(body, (embedded, streams), numbers)
    if patch is not None:
        last = patch(jnp.int32(n_layer), last)
    last = last.astype(dtype)
    streams = jax.lax.dynamic_update_index_in_dim(streams, last, n_layer, 0)
    return mesh.constrain(streams)
