"""Parts of blocks that the families share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens import types
from jaxlens.lens import mesh, numerics
from jaxlens.models import activations, attention
from jaxlens.models.checkpoints import layout


class Heads(Protocol):
    """Options of a family whose heads of queries share keys and values."""

    @property
    def n_head(self) -> int:
        """Heads of queries."""
        ...

    @property
    def n_kv_head(self) -> int:
        """Heads of keys and values."""
        ...

    @property
    def head_size(self) -> int:
        """Entries of a head."""
        ...


def initialiser(
    leaves: Callable[[types.Architecture], layout.Layout], gain: float = 1.0
) -> Callable[[types.Architecture, int], types.Params]:
    """The ``init`` of a family, as transformers initialises: normal, 0.02; biases 0.

    Args:
        leaves: Of the family.
        gain: What is stored of a norm that changes nothing.
    """

    def init(architecture: types.Architecture, seed: int) -> types.Params:
        """Fresh weights, see ``models.init``."""
        random = np.random.Generator(np.random.Philox(seed))
        expected = leaves(architecture)

        def fresh(leaf: layout.Leaf) -> np.ndarray:
            shape = expected.stacked_shape(leaf)
            if len(leaf.shape) == 1:
                return np.full(shape, 0.0 if leaf.path.endswith("/bias") else gain, np.float32)
            return random.standard_normal(shape, np.float32) * np.float32(0.02)

        return layout.nested({leaf.path: fresh(leaf) for leaf in expected.required()})

    return init


def unembed(
    params: types.Params,
    architecture: types.Architecture,
    kind: str,
    *,
    scale: jax.Array,
    eps: float,
    bias: jax.Array | None = None,
    **more: Any,
) -> types.Unembed:
    """The final norm, and the head where there is one or else the embedding.

    Args:
        params: ``wte``, and ``lm_head`` where the head is untied or has a bias.
        architecture: Sizes.
        kind: Decoder.
        scale: Gain of the final norm.
        eps: Of the final norm.
        bias: Of the final norm.
        more: Further fields of ``types.Unembed``.
    """
    head = params.get("lm_head", {})
    return types.Unembed(
        kind=kind,
        scale=scale,
        bias=bias,
        eps=eps,
        weight=head.get("weight", params["wte"]),
        output_bias=head.get("bias"),
        embedding=params["wte"] if "weight" in head else None,
        n_layer=architecture.n_layer,
        **more,
    )


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


def window(windows: tuple[int, ...], number: jax.Array, length: int) -> jax.Array | None:
    """Positions that a block attends to; None where no block has fewer than the sequences.

    Args:
        windows: Of each block, 0 for all; empty where all attend to all.
        number: Of the block.
        length: Positions of the sequences.
    """
    if not any(0 < one < length for one in windows):
        return None
    sizes = np.array([one or length for one in windows], np.int32)
    return jnp.asarray(sizes)[number.astype(jnp.int32)]


def self_attention(
    params: types.Params,
    options: Heads,
    x: Float[Array, "batch position embed"],
    turn: Callable[[str, jax.Array], jax.Array],
    segments: jax.Array | None,
    window: jax.Array | None,
    *,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "batch position embed"]:
    """Causal attention with projections of their own for query, key, value and output.

    Args:
        params: ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``.
        options: Numbers and size of the heads.
        x: Normalised stream.
        turn: From ``q`` or ``k`` and its heads ``[batch, position, head, entry]`` to what attends:
            norms and positions.
        segments: See ``attention.causal``.
        window: Likewise.
        scale: Multiplies the queries.
        softcap: See ``attention.causal``.
    """
    batch, length, _ = x.shape
    dtype = params["q_proj"]["kernel"].dtype

    def heads(name: str, count: int) -> jax.Array:
        """Heads; each device takes its own, where they cannot be shared out evenly all of them."""
        axis = 2 if mesh.divides(options.n_kv_head) else None
        product = dense(x, params[f"{name}_proj"])
        return mesh.constrain(product.reshape(batch, length, count, options.head_size), axis)

    query = turn("q", heads("q", options.n_head)) * np.float32(scale)
    key, value = turn("k", heads("k", options.n_kv_head)), heads("v", options.n_kv_head)
    parts = query.astype(dtype), key.astype(dtype), value.astype(dtype)
    mixed = attention.causal(*parts, segments, window=window, softcap=softcap)
    return mesh.constrain(dense(mixed.reshape(batch, length, -1), params["o_proj"]))


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
