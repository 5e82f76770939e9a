"""Parts of blocks that the families share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlens import types
from jaxlens.lens import numerics


def dense(x: jax.Array, layer: types.Params) -> jax.Array:
    """``x @ kernel + bias``, float32; the bias may be missing.

    Args:
        x: Rounded to the type of the kernel.
        layer: ``kernel [in, out]`` and ``bias [out]``.
    """
    kernel = layer["kernel"]
    product = jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
    bias = layer.get("bias")
    return product if bias is None else product + numerics.widen(bias, product)
