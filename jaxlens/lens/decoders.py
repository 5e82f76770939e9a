"""Decoders: what normalises a residual before the vocabulary readout that all of them share.

``final_norm`` applies the model's own final layer norm at every layer. ``plain`` leaves out its
gain and bias, as the code of the 2020 post did, and ``final_norm_nobias`` only its bias. In each
of them the *last* layer is decoded by the model's own final norm, so that it is the model.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlens import errors, types
from jaxlens.lens import numerics
from jaxlens.lens.options import Options

KINDS = ("final_norm", "plain", "final_norm_nobias")


def normalise(
    residuals: Float[Array, "layer *token embed"], unembed: types.Unembed
) -> Float[Array, "layer *token embed"]:
    """Normalised residuals of *all* layers of a model, ready for ``weight.T``; float32.

    Raises:
        ConfigError: ``unembed.kind`` is no decoder.
    """
    if unembed.kind not in KINDS:
        raise errors.ConfigError(f"unknown decoder {unembed.kind}", f"one of {', '.join(KINDS)}")
    normed = numerics.normalise(residuals, unembed.eps)
    scale, bias = numerics.widen(unembed.scale, normed), numerics.widen(unembed.bias, normed)
    if unembed.kind == "final_norm":
        return normed * scale + bias
    layers = jnp.arange(residuals.shape[0]).reshape(-1, *[1] * (residuals.ndim - 1))
    is_last = layers == residuals.shape[0] - 1
    gain = scale if unembed.kind == "final_norm_nobias" else jnp.where(is_last, scale, 1.0)
    return normed * gain + jnp.where(is_last, bias, 0.0)


def coldness(unembed: types.Unembed, options: Options) -> Float[Array, " layer"] | None:
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
