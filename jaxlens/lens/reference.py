"""The lens as its definition reads: all logits of all layers, vmapped and materialised.

Use it to check, not to sweep: it holds ``[layer, batch, position, vocab]`` in memory.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens import schema, types
from jaxlens.lens import decoders, numerics, readout
from jaxlens.lens.options import Options


def read(
    residuals: Float[Array, "layer batch position embed"],
    unembed: types.Unembed,
    references: types.References,
    options: Options,
) -> types.Readout:
    """Reads the lens at every chosen layer.

    Args:
        residuals: All ``n_layer + 1`` streams, before the final norm.
        unembed: Decoder and head.
        references: Tokens to compare with, and the mask of real positions.
        options: What to read.

    Returns:
        Every quantity of ``options.quantities``, ``[layer, batch, position, ...]``.
    """
    options = options.for_model(residuals.shape[0], unembed.weight.shape[0])
    inverse_temperature = decoders.inverse_temperature(unembed, options)
    normed = decoders.normalise(residuals, unembed)
    last, first = (logits(normed[i], unembed, options.precision) for i in (-1, 0))
    tokens = readout.reference_tokens(references)
    tokens["final"] = last.argmax(-1).astype(jnp.int32)
    tokens = {name: jnp.maximum(ids, 0) for name, ids in tokens.items()}
    if references.follow is not None:
        tokens["follow"] = jnp.maximum(references.follow, 0)

    def layer(index: jax.Array) -> dict[str, jax.Array]:
        z = logits(normed[index], unembed, options.precision)
        is_end = {"final": index == residuals.shape[0] - 1, "input": index == 0}
        values = _layer(z, {"final": last, "input": first}, is_end, tokens, options)
        if inverse_temperature is not None:
            log_p = numerics.log_softmax(z * inverse_temperature[index])
            matched = numerics.kl_divergence(numerics.log_softmax(last), log_p)
            values["kl_final_matched"] = jnp.where(is_end["final"], 0.0, matched)
        return values

    values = jax.vmap(layer)(jnp.asarray(options.layers))
    values |= readout.of_residuals(residuals, unembed, references, options)
    return readout.readout(values, references, options)


@functools.partial(jax.jit, static_argnames="precision")
def logits(
    normed: Float[Array, "... embed"], unembed: types.Unembed, precision: str = "float32"
) -> Float[Array, "... vocab"]:
    """Float32 logits of normalised residuals: ``normed @ weight.T + output_bias``, capped."""
    dtype = numerics.operand_dtype(precision)
    rows, weight = normed.astype(dtype), unembed.weight.astype(dtype)
    with numerics.matmul_precision(precision):
        # Not through `.T`, which CPUs copy.
        z = jnp.einsum("...e,ve->...v", rows, weight, preferred_element_type=jnp.float32)
    z = z if unembed.output_bias is None else z + numerics.widen(unembed.output_bias, z)
    return z if unembed.softcap is None else numerics.softcap(z, unembed.softcap)


def _layer(
    z: Float[Array, "batch position vocab"],
    ends: dict[str, jax.Array],
    is_end: dict[str, jax.Array],
    tokens: dict[str, jax.Array],
    options: Options,
) -> dict[str, jax.Array]:
    log_p = numerics.log_softmax(z)
    values = {"entropy": numerics.entropy(log_p)}
    for end, end_logits in ends.items():
        end_log_p = numerics.log_softmax(end_logits)
        # By construction 0 where the layer is the end; rounding would leave about 1e-7.
        factor = jnp.where(is_end[end], np.float32(0.0), np.float32(1.0))
        values[f"kl_{end}"] = factor * numerics.kl_divergence(end_log_p, log_p)
        values[f"kl_to_{end}"] = factor * numerics.kl_divergence(log_p, end_log_p)
        values[f"js_{end}"] = factor * numerics.js_divergence(end_log_p, log_p)
    for name, ids in tokens.items():
        values |= _token(z, log_p, name, ids)
    if options.wants("top_id", "top_logp"):
        values["top_logp"], values["top_id"] = jax.lax.top_k(log_p, options.top_k)
        values["top_id"] = jax.lax.top_k(z, options.top_k)[1].astype(jnp.int32)
    return values


def _token(z: jax.Array, log_p: jax.Array, name: str, ids: jax.Array) -> dict[str, jax.Array]:
    """Rank, ties and log-probability of one reference token at each position."""
    many = ids if ids.ndim == z.ndim else ids[..., None]
    reference_logits = jnp.take_along_axis(z, many, -1)
    wide = z[..., None, :]
    values = {
        "logp": jnp.take_along_axis(log_p, many, -1),
        "rank": numerics.rank(wide, many, reference_logits),
    }
    if f"ties_{name}" in schema.REFERENCE_ONLY:
        values["ties"] = numerics.ties(wide, many, reference_logits)
    squeezed = ids.ndim < z.ndim
    return {f"{kind}_{name}": v[..., 0] if squeezed else v for kind, v in values.items()}
