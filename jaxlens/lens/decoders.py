"""Decoders: what normalises a residual before the vocabulary readout that all of them share.

``final_norm`` applies the model's own final norm, a layer norm or an RMS norm, at every layer.
``plain`` leaves out its gain and bias, as the code of the 2020 post did, and ``final_norm_nobias``
only its bias. In each of them the *last* layer is decoded by the model's own final norm, so that it
is the model.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlens import errors, types
from jaxlens.lens import numerics
from jaxlens.lens.options import Options

Decoder = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""From normalised residuals, gain and bias of the final norm, and whether a layer is the last."""


def _final_norm(
    normed: jax.Array, scale: jax.Array, bias: jax.Array, is_last: jax.Array
) -> jax.Array:
    return normed * scale + bias


def _plain(normed: jax.Array, scale: jax.Array, bias: jax.Array, is_last: jax.Array) -> jax.Array:
    return normed * jnp.where(is_last, scale, 1.0) + jnp.where(is_last, bias, 0.0)


def _final_norm_nobias(
    normed: jax.Array, scale: jax.Array, bias: jax.Array, is_last: jax.Array
) -> jax.Array:
    return normed * scale + jnp.where(is_last, bias, 0.0)


DECODERS: dict[str, Decoder] = {
    "final_norm": _final_norm,
    "plain": _plain,
    "final_norm_nobias": _final_norm_nobias,
}
"""Name -> decoder; ``config.Decoder`` lists the names for the command line, which loads no JAX."""


NORMS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "layer": numerics.normalise,
    "rms": numerics.rms_normalise,
}
"""Final norms without gain and bias."""


def normalise(
    residuals: Float[Array, "layer *token embed"], unembed: types.Unembed
) -> Float[Array, "layer *token embed"]:
    """Decoded residuals of *all* layers of a model, ready for ``weight.T``; float32.

    Raises:
        ConfigError: ``unembed.kind`` is not a decoder.
    """
    if unembed.kind not in DECODERS:
        raise errors.ConfigError(f"unknown decoder {unembed.kind}", f"one of {', '.join(DECODERS)}")
    normed = NORMS[unembed.norm](residuals, unembed.eps)
    scale = numerics.widen(unembed.scale, normed)
    given = jnp.zeros_like(unembed.scale) if unembed.bias is None else unembed.bias
    bias = numerics.widen(given, normed)
    layers = jnp.arange(residuals.shape[0]).reshape(-1, *[1] * (residuals.ndim - 1))
    return DECODERS[unembed.kind](normed, scale, bias, layers == residuals.shape[0] - 1)


def inverse_temperature(unembed: types.Unembed, options: Options) -> Float[Array, " layer"] | None:
    """Inverse temperature of every layer, if matched divergences are asked for.

    Raises:
        ConfigError: They are, and the unembedding has no temperatures.
    """
    if not options.wants("kl_final_matched"):
        return None
    if unembed.temperature is None:
        raise errors.ConfigError(
            "kl_final_matched needs a temperature for each layer",
            "set Unembed.temperature, or use read_lens, which fits them",
        )
    return 1.0 / jnp.asarray(unembed.temperature, jnp.float32)
