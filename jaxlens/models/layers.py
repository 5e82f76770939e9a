"""Parts of blocks that the families share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens import types
from jaxlens.lens import mesh, numerics
from jaxlens.models import activations
from jaxlens.models.checkpoints import layout


def init(expected: layout.Layout, seed: int) -> types.Params:
    """Fresh weights as transformers initialises them: normal, 0.02; gains 1, biases 0.

    Args:
        expected: Of the weights.
        seed: Seed of the NumPy generator; the same seed and NumPy give the same bits.

    Returns:
        Float32 NumPy pytree.
    """
    random = np.random.Generator(np.random.Philox(seed))

    def fresh(leaf: layout.Leaf) -> np.ndarray:
        shape = expected.stacked_shape(leaf)
        if len(leaf.shape) == 1:
            return np.full(shape, 0.0 if leaf.path.endswith("/bias") else 1.0, np.float32)
        return random.standard_normal(shape, np.float32) * np.float32(0.02)

    return layout.nested({leaf.path: fresh(leaf) for leaf in expected.required()})


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


def gated_mlp(
    params: types.Params, activation: str, x: Float[Array, "batch position embed"]
) -> Float[Array, "batch position embed"]:
    """``(activation(x @ gate) * (x @ up)) @ down``, float32.

    Args:
        params: ``gate_proj``, ``up_proj`` and ``down_proj``, see `dense`.
        activation: One of ``activations.ACTIVATIONS``.
        x: What the MLP reads.
    """
    gate = activations.ACTIVATIONS[activation](dense(x, params["gate_proj"]))
    hidden = gate * dense(x, params["up_proj"])
    return mesh.constrain(dense(hidden, params["down_proj"]))
