"""OLMo 2: Llama's block with the norms after attention and MLP, and none before them.

Queries and keys are normalised too, all heads together. Everything else is Llama's.

Reference: OLMo team 2025, arXiv:2501.00656; layout of Hugging Face's ``Olmo2ForCausalLM``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import numerics, slicing
from jaxlens.models import block_leaves, layers, llama, llama_config, patches, rotary, streams
from jaxlens.models.checkpoints import layout

TITLE = "OLMo 2"

unembed, forward_flops = llama.unembed, llama.forward_flops

# Llama's own default is smaller.
_DEFAULTS = {"rms_norm_eps": 1e-5}


def parse(config: Mapping[str, Any]) -> types.Architecture:
    """The architecture that a ``config.json`` describes, as ``llama_config.parse``."""
    parsed = llama_config.parse({**_DEFAULTS, **config, "sliding_window": None})
    options = dataclasses.replace(parsed.options, output_bias=parsed.options.qkv_bias)
    return dataclasses.replace(parsed, options=options)


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face both read."""
    config = llama_config.dump(_as_llama(architecture))
    del config["mlp_bias"]
    return config | {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}


def leaves(architecture: types.Architecture) -> layout.Layout:
    """The weights, as ``Olmo2ForCausalLM`` names them."""
    llamas, options = llama_config.leaves(_as_llama(architecture)), architecture.options
    norms = (
        block_leaves.gain("self_attn/q_norm", options.n_head * options.head_size),
        block_leaves.gain("self_attn/k_norm", options.n_kv_head * options.head_size),
        block_leaves.gain("post_feedforward_layernorm", architecture.n_embd),
    )
    kept = (leaf for leaf in llamas.leaves if leaf.path != "layers/input_layernorm")
    return dataclasses.replace(
        llamas,
        architecture=architecture,
        title="transformers' Olmo2ForCausalLM",
        leaves=(*kept, *norms),
    )


def _as_llama(architecture: types.Architecture) -> types.Architecture:
    """The same sizes as a Llama, whose names OLMo 2 has taken over."""
    return dataclasses.replace(architecture, model_type="llama")


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
    options: llama_config.Options = architecture.options
    embedded = slicing.rows(params["wte"], tokens).astype(jnp.float32)
    angles = rotary.angles(positions, options.rope.frequencies(options.head_size))

    def block(weights: types.Params, stream: jax.Array, number: jax.Array) -> jax.Array:
        del number
        attend = weights["self_attn"]

        def turn(name: str, heads: jax.Array) -> jax.Array:
            rows = heads.reshape(*tokens.shape, -1)
            rows = numerics.rms_norm(rows, attend[f"{name}_norm"], options.rms_norm_eps)
            return rotary.rotate(rows.reshape(heads.shape), angles)

        scale = options.head_size**-0.5
        mixed = layers.self_attention(attend, options, stream, turn, segments, None, scale=scale)
        gain = weights["post_attention_layernorm"]
        stream = stream + numerics.rms_norm(mixed, gain, options.rms_norm_eps)
        hidden = layers.gated_mlp(weights["mlp"], options.activation_function, stream)
        gain = weights["post_feedforward_layernorm"]
        return stream + numerics.rms_norm(hidden, gain, options.rms_norm_eps)

    return streams.collect(block, params["layers"], embedded, architecture.n_layer, dtype, patch)
