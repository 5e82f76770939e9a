"""Causal attention in blocks of queries, each of which sees only the keys up to its end.

Nearly half of the products of causal attention would be masked away, and their scores would not
fit a cache. A block leaves both out, and divides by the sum of its exponentials only at the end,
where there are ``head`` numbers a query rather than ``key``.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens.lens import tuning

# Score of a key that may not be seen. Finite: no query is left without a key, so that it vanishes.
_HIDDEN = np.float32(-1e30)


def causal(
    query: Float[Array, "batch position heads head"],
    key: Float[Array, "batch position heads head"],
    value: Float[Array, "batch position heads head"],
    segments: Int[Array, "batch position"] | None = None,
) -> Float[Array, "batch position heads head"]:
    """Mixes values over the earlier positions of the same segment; scores are not scaled.

    Args:
        query: Scaled by the caller.
        key: Of the same type, which is that of the multiplies' operands.
        value: Likewise.
        segments: A query sees keys of its own segment only; one segment by default.

    Returns:
        Float32.
    """
    return tuning.by_platform(
        lambda chosen: functools.partial(_blocks, chosen), query, key, value, segments
    )


def _blocks(
    chosen: tuning.Tuning,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
) -> jax.Array:
    length = query.shape[1]
    mixed = []
    for start in range(0, length, chosen.attention_block):
        stop = min(start + chosen.attention_block, length)
        seen = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None]
        seen = seen[None]
        if segments is not None:
            seen = seen & (segments[:, start:stop, None] == segments[:, None, :stop])
        mixed.append(_block(chosen, query[:, start:stop], key[:, :stop], value[:, :stop], seen))
    return jnp.concatenate(mixed, axis=1)


def _block(
    chosen: tuning.Tuning, query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array
) -> jax.Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(seen[:, None], scores, _HIDDEN)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    if chosen.keeps_exponentials:
        weights = jax.lax.optimization_barrier(weights)
    mixed = jnp.einsum(
        "bhqk,bkhd->bqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return mixed / weights.sum(-1).swapaxes(1, 2)[..., None]
