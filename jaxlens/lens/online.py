"""Online statistics of logits, one tile of the vocabulary after the other.

Of each ``[layer, token]`` a few numbers are kept, whatever the vocabulary: the greatest
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

from jaxlens.lens import ranks, top_k, tuning

# Logit of the padding columns. Finite: with -inf, 0 * -inf would put NaN into the moments.
PADDING_LOGIT = np.float32(-1e30)


class Running(NamedTuple):
    """Statistics of each ``[layer, token]`` after some tiles."""

    max_logit: jax.Array  # greatest logit so far
    sum_exp: jax.Array  # sum of exp(z - max_logit)
    sum_exp_logit: jax.Array  # sum of exp(z - max_logit) z
    n_greater: jax.Array  # [layer, token, reference]: other tokens' logits above the reference's
    top: jax.Array  # [layer, token, k]: best logits
    top_id: jax.Array  # [layer, token, k]: their tokens
    sum_exp_tempered: jax.Array | None = None  # sum of exp((z - max_logit) / temperature)

    @property
    def log_total(self) -> jax.Array:
        """Log-sum-exp of the logits so far."""
        return self.max_logit + jnp.log(self.sum_exp)


def start(layers: int, tokens: int, references: int, n_top: int, tempered: bool = False) -> Running:
    """The state before the first tile."""
    shape = (layers, tokens)
    return Running(
        max_logit=jnp.full(shape, PADDING_LOGIT),
        sum_exp=jnp.zeros(shape, jnp.float32),
        sum_exp_logit=jnp.zeros(shape, jnp.float32),
        n_greater=jnp.zeros((*shape, references), jnp.int32),
        top=jnp.full((*shape, n_top), PADDING_LOGIT),
        top_id=jnp.zeros((*shape, n_top), jnp.int32),
        sum_exp_tempered=jnp.zeros(shape, jnp.float32) if tempered else None,
    )


def update(
    running: Running,
    z: Float[Array, "layer token column"],
    column: jax.Array,
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    inverse_temperature: Float[Array, " layer"] | None = None,
) -> tuple[Running, jax.Array, jax.Array]:
    """Adds one tile, whose first column is ``column``.

    ``inverse_temperature`` is needed where ``running.sum_exp_tempered`` is kept.

    Returns:
        The new state, ``exp(z - max_logit)``, and the factor that old sums were scaled by.
    """
    best, first = ranks.best(z)
    max_logit = jnp.maximum(running.max_logit, best)
    decay = jnp.exp(running.max_logit - max_logit)
    e = tuning.keep(jnp.exp(z - max_logit[..., None]), "keeps_exponentials")
    top, top_id = _best(running, z, (best, first + column), column)
    updated = Running(
        max_logit=max_logit,
        sum_exp=running.sum_exp * decay + e.sum(-1),
        sum_exp_logit=running.sum_exp_logit * decay + (e * z).sum(-1),
        n_greater=running.n_greater + ranks.count_greater(z, column, reference_logits, ids),
        top=top,
        top_id=top_id,
    )
    if inverse_temperature is not None and running.sum_exp_tempered is not None:
        beta = inverse_temperature[:, None]
        tempered = jnp.exp(beta[..., None] * (z - max_logit[..., None])).sum(-1)
        decayed = running.sum_exp_tempered * jnp.exp(beta * (running.max_logit - max_logit))
        updated = updated._replace(sum_exp_tempered=decayed + tempered)
    return updated, e, decay


def _best(
    running: Running, z: jax.Array, first: tuple[jax.Array, jax.Array], column: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The k best so far; ties go to the lowest id because earlier entries come first."""
    width = z.shape[-1]
    k = running.top.shape[-1]
    if k == 1:
        best, best_id = first
        better = best > running.top[..., 0]
        top = jnp.where(better, best, running.top[..., 0])
        return top[..., None], jnp.where(better, best_id, running.top_id[..., 0])[..., None]
    tile_top, tile_id = top_k.find(z, min(k, width))
    values = jnp.concatenate([running.top, tile_top], -1)
    ids = jnp.concatenate([running.top_id, tile_id + column], -1)
    top, positions = top_k.find(values, k)
    return top, jnp.take_along_axis(ids, positions, -1)


def finish(
    running: Running, reference_logits: Float[Array, "layer token reference"]
) -> dict[str, jax.Array]:
    """Quantities that follow from the state alone, ``[layer, token, ...]``."""
    log_total = running.log_total
    return {
        "entropy": log_total - running.sum_exp_logit / running.sum_exp,
        "rank": 1 + running.n_greater,
        "logp": reference_logits - log_total[..., None],
        "top_id": running.top_id,
        "top_logp": running.top - log_total[..., None],
    }
