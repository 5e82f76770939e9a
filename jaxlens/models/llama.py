"""Llama, Mistral, Qwen 2 and Qwen 3 as a stacked parameter pytree and one scan over the blocks.

RMS norms before attention and before a gated MLP, rotary positions, heads of queries that share
keys and values. Parameters: ``wte [vocab, embed]``, ``layers`` with every leaf stacked over layers
and kernels ``[in, out]``, ``norm``, and ``lm_head`` only where the head is untied.

Reference: Touvron et al. 2023, arXiv:2307.09288; layout of Hugging Face's ``LlamaForCausalLM``.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import numerics, slicing
from jaxlens.models import layers, llama_config, patches, rotary, streams
from jaxlens.models.checkpoints import gguf_config

TITLE = "Llama"

parse, dump, leaves = llama_config.parse, llama_config.dump, llama_config.leaves


def _halves(heads: str) -> gguf_config.Transform:
    """Undoes llama.cpp's order of rows, which puts the two entries that are turned side by side."""

    def restored(value: np.ndarray, architecture: types.Architecture) -> np.ndarray:
        count = getattr(architecture.options, heads)
        pairs = value.reshape(count, -1, 2, *value.shape[1:])
        return pairs.swapaxes(1, 2).reshape(value.shape)

    return restored


GGUF_NAMES = gguf_config.Names(
    keys={
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "rope.freq_base": "rope_theta",
    },
    tensors={
        "token_embd": "embed_tokens",
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "output_norm": "norm",
        "output": "lm_head",
    },
    implied={},
)
"""What files of every architecture call what these models have."""

GGUF_NORMED_HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

GGUF: dict[str, gguf_config.Names] = {
    # Files of Mistral say llama too; only this architecture has the rows in another order.
    "llama": dataclasses.replace(
        GGUF_NAMES,
        implied={"model_type": "llama"},
        flags={"attention_bias": "blk.0.attn_output.bias", "mlp_bias": "blk.0.ffn_down.bias"},
        transforms={"attn_q": _halves("n_head"), "attn_k": _halves("n_kv_head")},
    ),
    "qwen2": dataclasses.replace(GGUF_NAMES, implied={"model_type": "qwen2"}),
    "qwen3": dataclasses.replace(
        GGUF_NAMES,
        implied={"model_type": "qwen3"},
        tensors={**GGUF_NAMES.tensors, **GGUF_NORMED_HEADS},
    ),
}
"""Architecture of llama.cpp -> names in its files; see ``gguf_config.Names``."""


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
    eps = architecture.options.rms_norm_eps
    return layers.unembed(params, architecture, kind, scale=params["norm"], eps=eps, norm="rms")


def forward_flops(architecture: types.Architecture, length: int) -> float:
    """Operations of the blocks' multiplies a token; attention sees half of the line on average."""
    embed, options = architecture.n_embd, architecture.options
    query = options.n_head * options.head_size
    key = options.n_kv_head * options.head_size
    kernels = 2 * embed * query + 2 * embed * key + 3 * embed * options.n_inner
    return float(architecture.n_layer * (2 * kernels + 2 * length * query))
