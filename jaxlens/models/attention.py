"""Causal attention in blocks of queries, each of which sees only the keys up to its end.

Nearly half of the products of causal attention would be masked away, and their scores would not
fit a cache. A block leaves both out, and divides by the sum of its exponentials only at the end,
where there are ``head`` numbers a query rather than ``key``. Where several heads of queries share
one of keys (grouped queries, Ainslie et al. 2023), keys and values are not repeated.
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
    key: Float[Array, "batch position key_heads head"],
    value: Float[Array, "batch position key_heads head"],
    segments: Int[Array, "batch position"] | None = None,
    *,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "batch position heads head"]:
    """Mixes values over the earlier positions of the same segment; scores are not scaled.

    Args:
        query: Scaled by the caller.
        key: Of the same type, which is that of the multiplies' operands. Each serves as many
            heads of queries, which follow each other.
        value: Likewise.
        segments: A query sees keys of its own segment only; one segment by default.
        window: A query sees this many positions, its own included; all by default.
        softcap: Scores become ``softcap * tanh(score / softcap)``.

    Returns:
        Float32.
    """
    if isinstance(window, int):
        window = None if window >= query.shape[1] else jnp.int32(window)
    return tuning.by_platform(
        lambda chosen: functools.partial(_blocks, chosen, softcap),
        query,
        key,
        value,
        segments,
        window,
    )


def _blocks(
    chosen: tuning.Tuning,
    softcap: float | None,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None,
    window: jax.Array | None,
) -> jax.Array:
    length = query.shape[1]
    mixed = []
    for start in range(0, length, chosen.attention_block):
        stop = min(start + chosen.attention_block, length)
        seen = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None]
        if window is not None:
            seen = seen & (jnp.arange(start, stop)[:, None] - jnp.arange(stop)[None] < window)
        seen = seen[None]
        if segments is not None:
            seen = seen & (segments[:, start:stop, None] == segments[:, None, :stop])
        parts = query[:, start:stop], key[:, :stop], value[:, :stop]
        mixed.append(_block(chosen, softcap, *parts, seen))
    return jnp.concatenate(mixed, axis=1)


def _block(
    chosen: tuning.Tuning,
    softcap: float | None,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: jax.Array,
) -> jax.Array:
    heads, size = query.shape[2:]
    groups = heads // key.shape[2]
    if groups > 1:
        # In the order in which a product leaves them, so that scores are not laid out anew.
        query = query.reshape(*query.shape[:2], -1, groups, size)
        scored, summed, seen = "bqhgd,bkhd->bhqgk", "bhqgk,bkhd->bqhgd", seen[:, None, :, None]
    else:
        scored, summed, seen = "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", seen[:, None]
    scores = jnp.einsum(scored, query, key, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = np.float32(softcap) * jnp.tanh(scores / np.float32(softcap))
    scores = jnp.where(seen, scores, _HIDDEN)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    if chosen.keeps_exponentials:
        weights = jax.lax.optimization_barrier(weights)
    mixed = jnp.einsum(
        summed, weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    mixed = mixed / jnp.swapaxes(weights.sum(-1), 1, 2)[..., None]
    return mixed.reshape(*mixed.shape[:2], heads, size) if groups > 1 else mixed
