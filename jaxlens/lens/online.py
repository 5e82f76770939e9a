"""Online statistics of logits that pass by tile after tile.

What is kept of each ``[layer, token]`` is a few numbers, whatever the vocabulary: the greatest
logit, the sum of exponentials and their first moment relative to it, counts of logits above the
reference tokens', and the best tokens.

Reference: Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Logit of the padding columns. Finite: with -inf, 0 * -inf would put NaN into the moments.
PADDING_LOGIT = np.float32(-1e30)

_LANES = 64


class Running(NamedTuple):
    """What is known of each ``[layer, token]`` after some tiles."""

    greatest: jax.Array  # greatest logit so far
    total: jax.Array  # sum of exp(z - greatest)
    moment: jax.Array  # sum of exp(z - greatest) z
    greater: jax.Array  # [layer, token, reference]: other tokens' logits above the reference's
    top: jax.Array  # [layer, token, k]: best logits
    top_id: jax.Array  # [layer, token, k]: their tokens
    matched: jax.Array | None = None  # sum of exp((z - greatest) / temperature)

    @property
    def log_total(self) -> jax.Array:
        """Log-sum-exp of the logits so far."""
        return self.greatest + jnp.log(self.total)


def start(layers: int, tokens: int, references: int, top_k: int, matched: bool = False) -> Running:
    """The state before the first tile."""
    shape = (layers, tokens)
    return Running(
        greatest=jnp.full(shape, PADDING_LOGIT),
        total=jnp.zeros(shape, jnp.float32),
        moment=jnp.zeros(shape, jnp.float32),
        greater=jnp.zeros((*shape, references), jnp.int32),
        top=jnp.full((*shape, top_k), PADDING_LOGIT),
        top_id=jnp.zeros((*shape, top_k), jnp.int32),
        matched=jnp.zeros(shape, jnp.float32) if matched else None,
    )


def update(
    running: Running,
    z: Float[Array, "layer token column"],
    column: jax.Array,
    at: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    coldness: Float[Array, " layer"] | None = None,
) -> tuple[Running, jax.Array, jax.Array]:
    """Takes in one tile whose first column is ``column``.

    ``coldness``, the inverse temperature, is needed where ``running.matched`` is.

    Returns:
        The new state, ``exp(z - greatest)``, and the factor that old sums were scaled by.
    """
    best = z.max(-1)
    greatest = jnp.maximum(running.greatest, best)
    decay = jnp.exp(running.greatest - greatest)
    # Written once and read by every sum: XLA would compute the exponential again for each.
    e = jax.lax.optimization_barrier(jnp.exp(z - greatest[..., None]))
    top, top_id = _best(running, z, best, column)
    updated = Running(
        greatest=greatest,
        total=running.total * decay + e.sum(-1),
        moment=running.moment * decay + (e * z).sum(-1),
        greater=running.greater + count_greater(z, column, at, ids),
        top=top,
        top_id=top_id,
    )
    if coldness is not None and running.matched is not None:
        cold = coldness[:, None]
        tempered = jnp.exp(cold[..., None] * (z - greatest[..., None])).sum(-1)
        decayed = running.matched * jnp.exp(cold * (running.greatest - greatest))
        updated = updated._replace(matched=decayed + tempered)
    return updated, e, decay


def _best(
    running: Running, z: jax.Array, best: jax.Array, column: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The k best so far; ties go to the lowest id because earlier entries come first."""
    width = z.shape[-1]
    k = running.top.shape[-1]
    if k == 1:
        # A maximum and a minimum vectorise where an argmax does not.
        columns = _lanes(jnp.arange(width, dtype=jnp.int32)[None, None])
        first = jnp.where(_lanes(z) == best[..., None, None], columns, width).min(-2)
        first = jax.lax.optimization_barrier(first).min(-1) + column
        better = best > running.top[..., 0]
        top = jnp.where(better, best, running.top[..., 0])
        return top[..., None], jnp.where(better, first, running.top_id[..., 0])[..., None]
    tile_top, tile_id = jax.lax.top_k(z, min(k, width))
    values = jnp.concatenate([running.top, tile_top], -1)
    ids = jnp.concatenate([running.top_id, tile_id.astype(jnp.int32) + column], -1)
    top, place = jax.lax.top_k(values, k)
    return top, jnp.take_along_axis(ids, place, -1)


def count_greater(
    z: Float[Array, "layer token column"],
    column: jax.Array | int,
    at: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
) -> Int[Array, "layer token reference"]:
    """Logits of this tile above each reference's, the reference's own column left out.

    Its own column is left out because the gathered logit equals the tile's only to rounding.
    Several counts share one integer while a tile is read: each needs only the bits that count the
    groups of `_lanes`, so that the logits are read once for all references.
    """
    columns = _lanes(column + jnp.arange(z.shape[-1], dtype=jnp.int32)[None, None])
    lanes = _lanes(z)
    bits = lanes.shape[-2].bit_length()
    together = 31 // bits
    counts = []
    for first in range(0, at.shape[-1], together):
        members = range(first, min(first + together, at.shape[-1]))
        packed = jnp.zeros((), jnp.int32)
        for place, r in enumerate(members):
            above = (lanes > at[..., r, None, None]) & (columns != ids[None, :, r, None, None])
            packed = packed + jnp.where(above, np.int32(1 << bits * place), np.int32(0))
        packed = jax.lax.optimization_barrier(packed.sum(-2, dtype=jnp.int32))
        for place in range(len(members)):
            one = (packed >> np.int32(bits * place)) & np.int32((1 << bits) - 1)
            counts.append(one.sum(-1, dtype=jnp.int32))
    return jnp.stack(counts, -1)


def _lanes(x: jax.Array) -> jax.Array:
    """Columns in groups of 64, where they divide: ``[..., group, 64]``.

    Integers reduce twice as fast on CPUs along the groups and then within one (a barrier between
    the two keeps XLA from joining them again) as along all columns at once.
    """
    width = _LANES if x.shape[-1] % _LANES == 0 else x.shape[-1]
    return x.reshape(*x.shape[:-1], -1, width)


def finish(running: Running, at: Float[Array, "layer token reference"]) -> dict[str, jax.Array]:
    """What the state alone gives, ``[layer, token, ...]``."""
    log_total = running.log_total
    return {
        "entropy": log_total - running.moment / running.total,
        "rank": 1 + running.greater,
        "logp": at - log_total[..., None],
        "top_id": running.top_id,
        "top_logp": running.top - log_total[..., None],
    }
