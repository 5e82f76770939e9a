"""Divergences from moments: of the interior layers from both ends, and of the ends themselves.

``KL(q || p) = E_q[z_q] - lse_q - (E_q[z_p] - lse_p)`` needs two sums over the vocabulary; all
results are clamped at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens.lens import online, tuning

ENDS = ("input", "final")
"""Order of axis 0 of everything about the end layers."""

SYMMETRIC = ("js_input", "js_final")

Sums = dict[str, jax.Array]


def of_interior(
    inner: online.Running,
    cross: Sums,
    end: online.Running,
    inverse_temperature: Float[Array, " layer"] | None = None,
) -> dict[str, jax.Array]:
    """KL of the interior layers with both ends.

    Args:
        inner: State of the interior layers, ``[layer, token]``.
        cross: ``kl_E``, the mean of their logits under end E, and ``kl_to_E``, the sum of the
            logits of E weighted with theirs.
        end: State of the end layers.
        inverse_temperature: Of the interior layers, for matched divergences.
    """
    values = {}
    log_total = inner.log_total
    for i, name in enumerate(ENDS):
        own = (end.sum_exp_logit / end.sum_exp - end.log_total)[i][None]
        values[f"kl_{name}"] = own - (cross[f"kl_{name}"] - log_total)
        if f"kl_to_{name}" in cross:
            mean = cross[f"kl_to_{name}"] / inner.sum_exp
            values[f"kl_to_{name}"] = (
                inner.sum_exp_logit / inner.sum_exp - log_total - (mean - end.log_total[i][None])
            )
    if inverse_temperature is not None:
        own = (end.sum_exp_logit / end.sum_exp - end.log_total)[1][None]
        values["kl_final_matched"] = own - mean_log_p_tempered(
            inner, cross["kl_final"], inverse_temperature[:, None]
        )
    return {name: jnp.maximum(value, 0.0) for name, value in values.items()}


def mean_log_p_tempered(
    state: online.Running, mean: jax.Array, inverse_temperature: jax.Array
) -> jax.Array:
    """Mean log-probability at a temperature, from the mean of the logits."""
    assert state.sum_exp_tempered is not None, "it is summed wherever there is a temperature"
    return inverse_temperature * (mean - state.max_logit) - jnp.log(state.sum_exp_tempered)


def of_ends(
    end: online.Running, between: Sums, inverse_temperature: Float[Array, "2"] | None = None
) -> dict[str, jax.Array]:
    """Divergences of the end layers, ``[2, token]``; of an end from itself 0, by construction.

    Args:
        end: Their state.
        between: ``kl_E``, the mean under end E of the other end's logits, ``[token]``, and
            ``js``, where it is asked for.
        inverse_temperature: Of the two, for matched divergences; 1 of the last.
    """
    own = end.sum_exp_logit / end.sum_exp - end.log_total
    to_first = own[1] - (between["kl_final"] - end.log_total[0])
    to_last = own[0] - (between["kl_input"] - end.log_total[1])
    zero = jnp.zeros_like(to_first)

    def pair(at_input: jax.Array, at_last: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.stack([at_input, at_last]), 0.0)

    values = {
        "kl_final": pair(to_first, zero),
        "kl_to_final": pair(to_last, zero),
        "kl_input": pair(zero, to_last),
        "kl_to_input": pair(zero, to_first),
    }
    if "js" in between:
        values["js_final"] = pair(between["js"], zero)
        values["js_input"] = pair(zero, between["js"])
    if inverse_temperature is not None:
        first = jax.tree.map(lambda leaf: leaf[0], end)
        matched = own[1] - mean_log_p_tempered(first, between["kl_final"], inverse_temperature[0])
        values["kl_final_matched"] = pair(matched, zero)
    return values


def mean(
    p: Float[Array, "token column"], z: Float[Array, "layer token column"]
) -> Float[Array, "layer token"]:
    """``sum_v p(v) z(v)``, of one tile."""

    def as_product(p: jax.Array, z: jax.Array) -> jax.Array:
        return jnp.einsum("tc,ltc->lt", p, z, precision=jax.lax.Precision.HIGHEST)

    def as_sum(p: jax.Array, z: jax.Array) -> jax.Array:
        return (p[None] * z).sum(-1)

    return tuning.by_platform(
        lambda chosen: as_product if chosen.multiplies_means else as_sum, p, z
    )


def jensen_shannon_terms(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Terms whose sum over the vocabulary is the divergence."""
    log_m = jnp.logaddexp(log_p, log_q) - np.float32(np.log(2.0))
    return 0.5 * (jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m))
