"""Small GGUF files, written by the package of llama.cpp from tensors with transformers' names.

The names come from that package's own table, the order of rows from the formula of its converter.
"""

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlens import models
from jaxlens.models.checkpoints import checkpoint, layout

gguf = pytest.importorskip("gguf")

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "vocab_size": 96,
    "bos_token_id": 1,
}
CONFIGS = {
    "llama": {"model_type": "llama", **SIZES, "head_dim": 16, "rms_norm_eps": 1e-5},
    "llama-tied": {
        **{"model_type": "llama", **SIZES, "num_key_value_heads": 4, "rope_theta": 1e5},
        **{"tie_word_embeddings": True},
    },
    "llama-biased": {
        **{"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "qwen2": {"model_type": "qwen2", **SIZES, "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": 32},
    "gemma": {"model_type": "gemma", **SIZES, "head_dim": 32},
    "gemma2": {
        **{"model_type": "gemma2", **SIZES, "head_dim": 32, "sliding_window": 5},
        **{"query_pre_attn_scalar": 32, "attn_logit_softcapping": 0.75},
        "final_logit_softcapping": 12.5,
    },
    "gemma3": {
        **{"model_type": "gemma3_text", **SIZES, "head_dim": 32, "sliding_window": 7},
        **{"num_hidden_layers": 7, "query_pre_attn_scalar": 32, "rope_theta": 1e6},
        **{"rope_local_base_freq": 1e4, "sliding_window_pattern": 6},
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


def random_state(config, folder, seed=0):
    """Tensors of a model with random weights, under transformers' names."""
    random = np.random.default_rng(seed)
    architecture = models.parse(config)
    expected = models.leaves(architecture)
    params = {
        leaf.path: random.standard_normal(expected.stacked_shape(leaf), np.float32)
        * np.float32(leaf.shape[0] ** -0.5 if "kernel" in leaf.path else 0.5)
        for leaf in expected.required()
    }
    checkpoint.save(folder, architecture, layout.nested(params), "safetensors")
    return load_file(folder / "model.safetensors")


def interleaved(value, heads):
    """``permute`` of llama.cpp's ``convert_hf_to_gguf.py``."""
    pairs = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return pairs.swapaxes(1, 2).reshape(value.shape)


def quantized(state, kind):
    """Bytes that stand for each tensor, their type, and the values that they stand for.

    As llama.cpp does it, vectors stay float32.
    """
    stored, meant = {}, {}
    for name, value in state.items():
        found = gguf.GGMLQuantizationType[kind if value.ndim > 1 else "F32"]
        data = gguf.quantize(np.ascontiguousarray(value), found)
        stored[name] = data, found
        meant[name] = gguf.dequantize(data, found).reshape(value.shape)
    return stored, meant


def write(path, config, state, kind="F32", extra=None, tensors=None):
    """A file of a model.

    Args:
        path: Of the file.
        config: See ``CONFIGS``.
        state: Tensors under transformers' names.
        kind: Type of its matrices.
        extra: Called with the writer, before tensors.
        tensors: Further tensors, under llama.cpp's names, float32.

    Returns:
        The tensors whose values the file holds, under transformers' names.
    """
    model_type = config["model_type"]
    architecture = ARCHITECTURES[model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    heads = config["num_attention_heads"]
    groups = config["num_key_value_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(config.get("rope_theta", 1e4))
    writer.add_rope_dimension_count(config.get("head_dim", config["hidden_size"] // heads))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_bos_token_id(config["bos_token_id"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if "final_logit_softcapping" in config:
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if extra is not None:
        extra(writer)
    stored = quantized(_rows(state, config), kind)[0]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, (data, found) in stored.items():
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=found)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Blocks lie within rows, so that what a row means does not depend on where it stands.
    meant = quantized(state, kind)[1]
    if "gemma" in model_type:
        one = np.float32(1)
        meant |= {name: value + one - one for name, value in meant.items() if _is_norm(name)}
    return meant


def _is_norm(name):
    return name.endswith("norm.weight")


def _rows(state, config):
    """Tensors with the rows in llama.cpp's order, and Gemma's gains as llama.cpp stores them."""
    if "gemma" in config["model_type"]:
        return {k: v + np.float32(1) if _is_norm(k) else v for k, v in state.items()}
    if config["model_type"] != "llama":
        return state
    count = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }

    def ordered(name, value):
        part = name.split(".")[-2]
        return interleaved(value, count[part]) if part in count else value

    return {name: ordered(name, value) for name, value in state.items()}
