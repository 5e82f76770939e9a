"""Llama, Mistral, Qwen 2 and Qwen 3 as a stacked parameter pytree and one scan over the blocks.

RMS norms before attention and before a gated MLP, rotary positions, heads of queries that share
keys and values. Parameters: ``wte [vocab, embed]``, ``layers`` with every leaf stacked over layers
and kernels ``[in, out]``, ``norm``, and ``lm_head`` only where the head is untied.

Reference: Touvron et al. 2023, arXiv:2307.09288; layout of Hugging Face's ``LlamaForCausalLM``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import numerics, slicing
from jaxlens.models import layers, llama_config, patches, rotary, streams

TITLE = "Llama"

parse, dump, leaves = llama_config.parse, llama_config.dump, llama_config.leaves


def init(architecture: types.Architecture, seed: int) -> types.Params:
    """Fresh weights as transformers initialises them: normal, 0.02; gains 1, biases 0.

    Args:
        architecture: Sizes.
        seed: Seed of the NumPy generator; the same seed and NumPy give the same bits.

    Returns:
        Float32 NumPy pytree.
    """
    return layers.init(leaves(architecture), seed)


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
    options: llama_config.Options = architecture.options
    embedded = slicing.rows(params["wte"], tokens).astype(jnp.float32)
    angles = rotary.angles(positions, options.rope.frequencies(options.head_size))

    def block(weights: types.Params, stream: jax.Array, number: jax.Array) -> jax.Array:
        window = layers.window(options.windows, number, tokens.shape[1])
        normed = numerics.rms_norm(stream, weights["input_layernorm"], options.rms_norm_eps)
        attend = weights["self_attn"]

        def turn(name: str, rows: jax.Array) -> jax.Array:
            if options.norms_heads:
                rows = numerics.rms_norm(rows, attend[f"{name}_norm"], options.rms_norm_eps)
            return rotary.rotate(rows, angles)

        scale = 1.0 / np.sqrt(options.head_size)
        mixed = layers.self_attention(attend, options, normed, turn, segments, window, scale=scale)
        stream = stream + mixed
        normed = numerics.rms_norm(
            stream, weights["post_attention_layernorm"], options.rms_norm_eps
        )
        return stream + layers.gated_mlp(weights["mlp"], options.activation_function, normed)

    return streams.collect(block, params["layers"], embedded, architecture.n_layer, dtype, patch)


def unembed(
    params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
) -> types.Unembed:
    """The model's own final norm and head, with the decoder ``kind`` for the other layers."""
    head = params.get("lm_head", {})
    return types.Unembed(
        kind=kind,
        scale=params["norm"],
        bias=None,
        eps=architecture.options.rms_norm_eps,
        weight=head.get("weight", params["wte"]),
        embedding=params["wte"] if "weight" in head else None,
        n_layer=architecture.n_layer,
        norm="rms",
    )


def forward_flops(architecture: types.Architecture, length: int) -> float:
    """Operations of the blocks' multiplies a token; attention sees half of the line on average."""
    embed, options = architecture.n_embd, architecture.options
    query = options.n_head * options.head_size
    key = options.n_kv_head * options.head_size
    kernels = 2 * embed * query + 2 * embed * key + 3 * embed * options.n_inner
    return float(architecture.n_layer * (2 * kernels + 2 * length * query))
