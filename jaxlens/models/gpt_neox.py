"""GPT-NeoX (Pythia) as a stacked parameter pytree and one scan over the blocks.

Layer norms, rotary positions on a part of each head, and attention and MLP side by side: both read
the stream before the block. Parameters: ``wte [vocab, embed]``, ``layers`` with every leaf stacked
over layers and kernels ``[in, out]``, ``final_layer_norm``, and ``lm_head`` only where the head is
untied. The columns of ``query_key_value`` are those of query, key and value of one head after the
other.

Reference: Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373; layout of
Hugging Face's ``GPTNeoXForCausalLM``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import mesh, numerics, slicing
from jaxlens.models import (
    activations,
    attention,
    gpt_neox_config,
    layers,
    patches,
    rotary,
    streams,
)

TITLE = "GPT-NeoX"

parse, dump, leaves = gpt_neox_config.parse, gpt_neox_config.dump, gpt_neox_config.leaves


init = layers.initialiser(leaves)


def residuals(
    params: types.Params,
    architecture: types.Architecture,
    tokens: Int[Array, "batch position"],
    positions: Int[Array, "batch position"] | None = None,
    segments: Int[Array, "batch position"] | None = None,
    *,
    dtype: str = "float32",
    patch: patches.Patch | None = None,
) -> Float[Array, "layer batch position embed"]:
    """Every residual stream, see ``models.residuals``; the first is the token embedding alone."""
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    options: gpt_neox_config.Options = architecture.options
    embedded = slicing.rows(params["wte"], tokens).astype(jnp.float32)
    turned = gpt_neox_config.rotated(architecture.n_embd // options.n_head, options.rotary_pct)
    angles = rotary.angles(positions, options.rope.frequencies(turned))

    def block(weights: types.Params, stream: jax.Array, number: jax.Array) -> jax.Array:
        del number
        normed = _norm(stream, weights["input_layernorm"], options)
        mixed = _attention(weights["attention"], options, normed, angles, segments)
        between = stream if options.use_parallel_residual else stream + mixed
        normed = _norm(between, weights["post_attention_layernorm"], options)
        return stream + mixed + _mlp(weights["mlp"], options.activation_function, normed)

    return streams.collect(block, params["layers"], embedded, architecture.n_layer, dtype, patch)


def unembed(
    params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
) -> types.Unembed:
    """The model's own final norm and head, with the decoder ``kind`` for the other layers."""
    eps = architecture.options.layer_norm_eps
    return layers.unembed(params, architecture, kind, **params["final_layer_norm"], eps=eps)


def forward_flops(architecture: types.Architecture, length: int) -> float:
    """Operations of the blocks' multiplies a token; attention sees half of the line on average."""
    embed, inner = architecture.n_embd, architecture.options.n_inner
    block = 2 * embed * (4 * embed + 2 * inner) + 2 * length * embed
    return float(architecture.n_layer * block)


def _norm(
    x: Float[Array, "batch position embed"],
    params: types.Params,
    options: gpt_neox_config.Options,
) -> Float[Array, "batch position embed"]:
    return numerics.layer_norm(x, params["scale"], params["bias"], options.layer_norm_eps)


def _attention(
    params: types.Params,
    options: gpt_neox_config.Options,
    x: Float[Array, "batch position embed"],
    angles: rotary.Angles,
    segments: jax.Array | None,
) -> Float[Array, "batch position embed"]:
    batch, length, embed = x.shape
    heads, dtype = options.n_head, params["dense"]["kernel"].dtype
    packed = layers.dense(x, params["query_key_value"])
    packed = packed.reshape(batch, length, heads, 3, embed // heads)
    # Each device takes its own heads; where they cannot be shared out evenly, all of them.
    packed = mesh.constrain(packed, 2 if mesh.divides(heads) else None)
    query, key, value = (packed[..., part, :] for part in range(3))
    query = rotary.rotate(query, angles) * np.float32(1.0 / np.sqrt(embed // heads))
    mixed = attention.causal(
        query.astype(dtype), rotary.rotate(key, angles).astype(dtype), value.astype(dtype), segments
    )
    return mesh.constrain(layers.dense(mixed.reshape(batch, length, embed), params["dense"]))


def _mlp(
    params: types.Params, activation: str, x: Float[Array, "batch position embed"]
) -> Float[Array, "batch position embed"]:
    hidden = activations.ACTIVATIONS[activation](layers.dense(x, params["dense_h_to_4h"]))
    return mesh.constrain(layers.dense(hidden, params["dense_4h_to_h"]))
