"""Divergences from moments: of the interior layers from both ends, and of the ends themselves.

``KL(q || p) = E_q[z_q] - lse_q - (E_q[z_p] - lse_p)`` needs two sums over the vocabulary; all
results are clamped at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens.lens import online
from jaxlens.lens.options import Options

ENDS = ("input", "final")
"""Order of axis 0 of everything about the end layers."""

SYMMETRIC = ("js_input", "js_final")

Sums = dict[str, jax.Array]


def of_interior(inner: online.Running, cross: Sums, end: online.Running) -> dict[str, jax.Array]:
    """KL of the interior layers with both ends.

    Args:
        inner: State of the interior layers, ``[layer, token]``.
        cross: ``kl_E``, the mean of their logits under end E, and ``kl_to_E``, the sum of the
            logits of E weighted with theirs.
        end: State of the end layers.
    """
    values = {}
    log_total = inner.log_total
    for i, name in enumerate(ENDS):
        own = (end.moment / end.total - end.log_total)[i][None]
        values[f"kl_{name}"] = own - (cross[f"kl_{name}"] - log_total)
        if f"kl_to_{name}" in cross:
            mean = cross[f"kl_to_{name}"] / inner.total
            values[f"kl_to_{name}"] = (
                inner.moment / inner.total - log_total - (mean - end.log_total[i][None])
            )
    return {name: jnp.maximum(value, 0.0) for name, value in values.items()}


def between_ends(
    p: Float[Array, "2 token column"], log_p: Float[Array, "2 token column"], options: Options
) -> Sums:
    """What one tile adds to the divergences of the end layers from each other, ``[token]``."""
    apart = log_p[1] - log_p[0]
    sums = {"forward": (p[1] * apart).sum(-1), "backward": -(p[0] * apart).sum(-1)}
    if options.wants(*SYMMETRIC):
        sums["symmetric"] = jensen_shannon_terms(log_p[0], log_p[1]).sum(-1)
    return sums


def of_ends(between: Sums) -> dict[str, jax.Array]:
    """Divergences of the end layers, ``[2, token]``; of an end from itself 0, by construction."""
    zero = jnp.zeros_like(between["forward"])

    def pair(at_input: jax.Array, at_last: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.stack([at_input, at_last]), 0.0)

    values = {
        "kl_final": pair(between["forward"], zero),
        "kl_to_final": pair(between["backward"], zero),
        "kl_input": pair(zero, between["backward"]),
        "kl_to_input": pair(zero, between["forward"]),
    }
    if "symmetric" in between:
        values["js_final"] = pair(between["symmetric"], zero)
        values["js_input"] = pair(zero, between["symmetric"])
    return values


def jensen_shannon_terms(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Terms whose sum over the vocabulary is the divergence."""
    log_m = jnp.logaddexp(log_p, log_q) - np.float32(np.log(2.0))
    return 0.5 * (jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m))
