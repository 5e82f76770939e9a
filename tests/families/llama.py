"""Llama, Mistral, Qwen 2 and Qwen 3."""

import numpy as np

from families import parts

_SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "vocab_size": 4096,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

CASES = {
    "llama": {"model_type": "llama", **_SIZES},
    "llama-tied": {
        **{"model_type": "llama", **_SIZES, "num_key_value_heads": 6},
        **{"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_theta": 1e5},
    },
    "llama-3.1": {
        **{"model_type": "llama", **_SIZES, "head_dim": 10, "rope_theta": 500.0},
        "rope_scaling": _LLAMA3,
    },
    "llama-biased": {
        **{"model_type": "llama", **_SIZES, "attention_bias": True, "mlp_bias": True},
        **{"hidden_act": "gelu_pytorch_tanh"},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "mistral": {"model_type": "mistral", **_SIZES, "sliding_window": 5, "head_dim": 6},
    "qwen2": {
        **{"model_type": "qwen2", **_SIZES, "sliding_window": 7, "use_sliding_window": True},
        **{"max_window_layers": 2, "tie_word_embeddings": True},
    },
    "qwen3": {"model_type": "qwen3", **_SIZES, "head_dim": 8, "rope_theta": 1e6},
}


def residuals(state, config, tokens, positions, segments):
    """Every stream of one sequence, ``[layer, position, embed]``."""
    stream = state["model.embed_tokens.weight"][tokens]
    streams = [stream]
    eps = config.get("rms_norm_eps", 1e-6)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        normed = parts.rms_norm(stream, state[f"{name}.input_layernorm.weight"], eps)
        stream = stream + _attention(
            state, config, f"{name}.self_attn", normed, positions, segments, layer
        )
        normed = parts.rms_norm(stream, state[f"{name}.post_attention_layernorm.weight"], eps)
        gate = parts.ACTIVATIONS[config.get("hidden_act", "silu")](
            parts.linear(normed, state, f"{name}.mlp.gate_proj")
        )
        hidden = gate * parts.linear(normed, state, f"{name}.mlp.up_proj")
        stream = stream + parts.linear(hidden, state, f"{name}.mlp.down_proj")
        streams.append(stream)
    return np.stack(streams)


def logits(state, config, stream):
    normed = parts.rms_norm(stream, state["model.norm.weight"], config.get("rms_norm_eps", 1e-6))
    return normed @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T


def _attention(state, config, name, x, positions, segments, layer):
    heads = config["num_attention_heads"]
    size = config.get("head_dim", config["hidden_size"] // heads)
    found = parts.frequencies(size, config.get("rope_theta", 1e4), config.get("rope_scaling"))

    def split(part):
        return parts.linear(x, state, f"{name}.{part}_proj").reshape(len(x), -1, size)

    def turned(part):
        rows = split(part)
        if config["model_type"] == "qwen3":
            gain = state[f"{name}.{part}_norm.weight"]
            rows = parts.rms_norm(rows, gain, config.get("rms_norm_eps", 1e-6))
        at = [
            [parts.rotated(head, p, found) for head in row]
            for row, p in zip(rows, positions, strict=True)
        ]
        return np.array(at)

    window = config.get("sliding_window")
    if config["model_type"] == "qwen2" and layer < config["max_window_layers"]:
        window = None
    mixed = parts.attention(turned("q"), turned("k"), split("v"), size**-0.5, segments, window)
    return parts.linear(mixed.reshape(len(x), -1), state, f"{name}.o_proj")
