"""Gemma 1 to 3 as a stacked parameter pytree and one scan over the blocks.

RMS norms whose gain is 1 + the stored weight, an embedding that is multiplied with the square root
of the width, gated MLPs, rotary positions; Gemma 2 caps scores and logits, Gemma 3 normalises
queries and keys. Parameters are named as those of ``llama``, and hold what the checkpoint holds.

The factor of the embedding is rounded to float32, as transformers does with float32 weights; with
bfloat16 weights it rounds the factor to bfloat16 (55.5 for a width of 3,072 instead of 55.43),
which is not done here whatever the type of the weights.

Reference: Gemma Team 2024, arXiv:2403.08295 and 2408.00118; 2025, arXiv:2503.19786; layout of
Hugging Face's ``Gemma3ForCausalLM``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import numerics, slicing
from jaxlens.models import (
    block_leaves,
    gemma_config,
    layers,
    llama,
    llama_config,
    patches,
    rotary,
    streams,
)
from jaxlens.models.checkpoints import gguf_config, layout

TITLE = "Gemma"

parse, dump = gemma_config.parse, gemma_config.dump

forward_flops = llama.forward_flops


def leaves(architecture: types.Architecture) -> layout.Layout:
    """The weights, as transformers' classes of each generation name them.

    Gains of norms are stored as what they exceed 1 by, and kept so: the checkpoint's own numbers.
    """
    name = gemma_config.CLASSES[architecture.model_type]
    return llama_config.around(architecture, name, _block(architecture))


def _excess(value: np.ndarray, architecture: types.Architecture) -> np.ndarray:
    """Gain of a norm as checkpoints store it; llama.cpp stores it with the 1."""
    return value - np.float32(1)


def _query_scalar(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What llama.cpp divides scores by: the size of a head, but in the largest models."""
    size, layers = config.get("head_dim"), config.get("num_hidden_layers")
    if layers in _LARGEST_LAYERS:
        size = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": size}


def _without_window(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """As ``_query_scalar``; files of Gemma 3 that state no window have none."""
    layers = config.get("num_hidden_layers")
    if "sliding_window" in config or not isinstance(layers, int):
        return _query_scalar(config)
    return {**_query_scalar(config), "layer_types": ["full_attention"] * layers}


# Gemma 2 and 3 of 27 billion parameters.
_LARGEST_LAYERS = (46, 62)
_NORMS = ("attn_norm", "ffn_norm", "output_norm")
_FURTHER_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GGUF = dataclasses.replace(
    llama.GGUF_NAMES,
    implied={"model_type": "gemma"},
    transforms=dict.fromkeys((*_NORMS, *_FURTHER_NORMS, *llama.GGUF_NORMED_HEADS), _excess),
)
_GGUF_2 = dataclasses.replace(
    _GGUF,
    implied={"model_type": "gemma2"},
    keys={
        **_GGUF.keys,
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    tensors={**_GGUF.tensors, **_FURTHER_NORMS},
    complete=_query_scalar,
)
GGUF: dict[str, gguf_config.Names] = {
    "gemma": _GGUF,
    "gemma2": _GGUF_2,
    "gemma3": dataclasses.replace(
        _GGUF_2,
        implied={"model_type": "gemma3_text"},
        tensors={**_GGUF_2.tensors, **llama.GGUF_NORMED_HEADS},
        complete=_without_window,
    ),
}
"""Architecture of llama.cpp -> names in its files; see ``gguf_config.Names``."""


init = layers.initialiser(leaves, gain=0.0)  # of which 1 is stored as 0


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
    """Every residual stream, see ``models.residuals``; the first is the scaled embedding."""
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    options: gemma_config.Options = architecture.options
    embedded = slicing.rows(params["wte"], tokens).astype(jnp.float32)
    embedded = embedded * np.float32(_embedding_scale(architecture))
    turn_at = _turns(options, positions)

    def block(weights: types.Params, stream: jax.Array, number: jax.Array) -> jax.Array:
        def norm(name: str, rows: jax.Array, of: types.Params = weights) -> jax.Array:
            return numerics.rms_norm(rows, _gain(of[name]), options.rms_norm_eps)

        attend, angles = weights["self_attn"], turn_at(number)

        def turn(name: str, rows: jax.Array) -> jax.Array:
            rows = norm(f"{name}_norm", rows, attend) if options.norms_heads else rows
            return rotary.rotate(rows, angles)

        mixed = layers.self_attention(
            *(attend, options, norm("input_layernorm", stream), turn, segments),
            layers.window(options.windows, number, tokens.shape[1]),
            scale=options.query_scalar**-0.5,
            softcap=options.attention_softcap,
        )
        if not options.norms_outputs:
            stream = stream + mixed
            normed = norm("post_attention_layernorm", stream)
            return stream + layers.gated_mlp(weights["mlp"], options.activation_function, normed)
        stream = stream + norm("post_attention_layernorm", mixed)
        normed = norm("pre_feedforward_layernorm", stream)
        hidden = layers.gated_mlp(weights["mlp"], options.activation_function, normed)
        return stream + norm("post_feedforward_layernorm", hidden)

    return streams.collect(block, params["layers"], embedded, architecture.n_layer, dtype, patch)


def unembed(
    params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
) -> types.Unembed:
    """The model's own final norm and head, with the decoder ``kind`` for the other layers."""
    return layers.unembed(
        params,
        architecture,
        kind,
        scale=_final_gain(params["norm"]),
        eps=architecture.options.rms_norm_eps,
        norm="rms",
        softcap=architecture.options.final_softcap,
        embedding_scale=_embedding_scale(architecture),
    )


def _final_gain(stored: Any) -> Any:
    """`_gain` of the last norm; its shape where only that of the weights is given."""
    if isinstance(stored, jax.ShapeDtypeStruct):
        return jax.eval_shape(_gain, stored)
    return _gain(jnp.asarray(stored))


def _embedding_scale(architecture: types.Architecture) -> float:
    """What the embedding is multiplied with, a float32."""
    return float(np.float32(np.sqrt(architecture.n_embd)))


def _gain(stored: Float[Array, " entry"]) -> Float[Array, " entry"]:
    """Gain of a norm from what it exceeds 1 by; float32, which bfloat16 would round to 1."""
    return stored.astype(jnp.float32) + np.float32(1.0)


def _turns(
    options: gemma_config.Options, positions: Int[Array, "batch position"]
) -> Callable[[jax.Array], rotary.Angles]:
    """From the number of a block to its angles."""
    whole = rotary.angles(positions, options.rope.frequencies(options.head_size))
    if options.local_rope is None or not options.windows:
        return lambda number: whole
    local = rotary.angles(positions, options.local_rope.frequencies(options.head_size))
    is_local = np.array(options.windows) > 0

    def angles(number: jax.Array) -> rotary.Angles:
        chosen = jnp.asarray(is_local)[number.astype(jnp.int32)]
        cosine, sine = (jnp.where(chosen, *both) for both in zip(local, whole, strict=True))
        return cosine, sine

    return angles


def _block(architecture: types.Architecture) -> Iterator[layout.Leaf]:
    """Leaves of one block, split over devices as Llama's are."""
    embed, options = architecture.n_embd, architecture.options
    query, key = options.n_head * options.head_size, options.n_kv_head * options.head_size
    bias = options.attention_bias
    yield block_leaves.gain("input_layernorm", embed)
    yield from block_leaves.attention(embed, query, key, bias, bias)
    if options.norms_heads:
        yield block_leaves.gain("self_attn/q_norm", options.head_size)
        yield block_leaves.gain("self_attn/k_norm", options.head_size)
    yield block_leaves.gain("post_attention_layernorm", embed)
    if options.norms_outputs:
        yield block_leaves.gain("pre_feedforward_layernorm", embed)
        yield block_leaves.gain("post_feedforward_layernorm", embed)
    yield from block_leaves.gated_mlp(embed, options.n_inner)
