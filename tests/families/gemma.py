"""Gemma 1, 2 and 3."""

import numpy as np

from families import parts

_SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "vocab_size": 4096,
}
_LOCAL, _WHOLE = "sliding_attention", "full_attention"

# Caps that bite: scores of these weights are of order 1, logits of order 10.
CASES = {
    "gemma": {"model_type": "gemma", **_SIZES, "hidden_act": "gelu"},
    "gemma2": {
        **{"model_type": "gemma2", **_SIZES, "sliding_window": 5, "query_pre_attn_scalar": 6},
        **{"attn_logit_softcapping": 0.7, "final_logit_softcapping": 10.0},
    },
    "gemma2-plain": {
        **{"model_type": "gemma2", **_SIZES, "attention_bias": True, "rope_theta": 500.0},
        **{"layer_types": [_WHOLE] * 3, "tie_word_embeddings": False, "rms_norm_eps": 1e-5},
        **{"attn_logit_softcapping": None, "final_logit_softcapping": None},
    },
    "gemma3": {
        **{"model_type": "gemma3_text", **_SIZES, "sliding_window": 7},
        **{"sliding_window_pattern": 2, "rope_theta": 1e5, "rope_local_base_freq": 50.0},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "gemma3-2025": {
        **{"model_type": "gemma3_text", **_SIZES, "sliding_window": 6, "num_key_value_heads": 1},
        **{"layer_types": [_WHOLE, _LOCAL, _LOCAL], "final_logit_softcapping": 8.0},
        "rope_parameters": {
            _LOCAL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
            _WHOLE: {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}


def residuals(state, config, tokens, positions, segments):
    """Every stream of one sequence, ``[layer, position, embed]``."""
    stream = state["model.embed_tokens.weight"][tokens] * np.sqrt(config["hidden_size"])
    streams = [stream]

    def norm(name, rows):
        gain = 1 + state[f"{name}.weight"]
        return parts.rms_norm(rows, gain, config.get("rms_norm_eps", 1e-6))

    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        normed = norm(f"{name}.input_layernorm", stream)
        mixed = _attention(state, config, name, normed, positions, segments, layer, norm)
        if config["model_type"] == "gemma":
            stream = stream + mixed
            normed = norm(f"{name}.post_attention_layernorm", stream)
            stream = stream + _mlp(state, name, normed)
        else:
            stream = stream + norm(f"{name}.post_attention_layernorm", mixed)
            normed = norm(f"{name}.pre_feedforward_layernorm", stream)
            hidden = _mlp(state, name, normed)
            stream = stream + norm(f"{name}.post_feedforward_layernorm", hidden)
        streams.append(stream)
    return np.stack(streams)


def logits(state, config, stream):
    gain = 1 + state["model.norm.weight"]
    normed = parts.rms_norm(stream, gain, config.get("rms_norm_eps", 1e-6))
    z = normed @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T
    cap = config.get("final_logit_softcapping")
    return z if cap is None else cap * np.tanh(z / cap)


def _mlp(state, name, x):
    gate = parts.gelu_tanh(parts.linear(x, state, f"{name}.mlp.gate_proj"))
    return parts.linear(
        gate * parts.linear(x, state, f"{name}.mlp.up_proj"), state, f"{name}.mlp.down_proj"
    )


def _attention(state, config, name, x, positions, segments, layer, norm):
    local = _is_local(config, layer)
    size = config["head_dim"]
    found = parts.frequencies(size, *_rope(config, local))

    def split(part):
        return parts.linear(x, state, f"{name}.self_attn.{part}_proj").reshape(len(x), -1, size)

    def turned(part):
        rows = split(part)
        if config["model_type"] == "gemma3_text":
            rows = norm(f"{name}.self_attn.{part}_norm", rows)
        at = [
            [parts.rotated(head, p, found) for head in row]
            for row, p in zip(rows, positions, strict=True)
        ]
        return np.array(at)

    default = size if config["model_type"] == "gemma" else 256
    scale = config.get("query_pre_attn_scalar", default) ** -0.5
    window = config["sliding_window"] if local else None
    cap = config.get("attn_logit_softcapping")
    mixed = parts.attention(turned("q"), turned("k"), split("v"), scale, segments, window, cap)
    return parts.linear(mixed.reshape(len(x), -1), state, f"{name}.self_attn.o_proj")


def _is_local(config, layer):
    if config["model_type"] == "gemma":
        return False
    if "layer_types" in config:
        return config["layer_types"][layer] == _LOCAL
    # Gemma 2 begins with a window and takes turns; Gemma 3 has one whole block in so many.
    return (layer + 1) % config.get("sliding_window_pattern", 2) != 0


def _rope(config, local):
    """Base and scaling of a block's frequencies."""
    if "rope_parameters" in config:
        found = config["rope_parameters"][_LOCAL if local else _WHOLE]
        return found["rope_theta"], found
    if config["model_type"] == "gemma3_text" and local:
        return config["rope_local_base_freq"], None
    return config.get("rope_theta", 1e4), config.get("rope_scaling")
