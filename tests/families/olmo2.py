"""OLMo 2."""

import numpy as np

from families import parts

_SIZES = {
    "model_type": "olmo2",
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "vocab_size": 4096,
}

CASES = {
    "olmo2": _SIZES,
    "olmo2-grouped": {
        **{**_SIZES, "num_key_value_heads": 2, "attention_bias": True, "rope_theta": 5e5},
        **{"tie_word_embeddings": True, "rms_norm_eps": 1e-3, "hidden_act": "gelu"},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
}


def residuals(state, config, tokens, positions, segments):
    """Every stream of one sequence, ``[layer, position, embed]``."""
    stream = state["model.embed_tokens.weight"][tokens]
    streams = [stream]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        mixed = _attention(state, config, f"{name}.self_attn", stream, positions, segments)
        stream = stream + _norm(mixed, state, config, f"{name}.post_attention_layernorm")
        gate = parts.ACTIVATIONS[config.get("hidden_act", "silu")](
            parts.linear(stream, state, f"{name}.mlp.gate_proj")
        )
        hidden = gate * parts.linear(stream, state, f"{name}.mlp.up_proj")
        hidden = parts.linear(hidden, state, f"{name}.mlp.down_proj")
        stream = stream + _norm(hidden, state, config, f"{name}.post_feedforward_layernorm")
        streams.append(stream)
    return np.stack(streams)


def logits(state, config, stream):
    normed = _norm(stream, state, config, "model.norm")
    return normed @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T


def _norm(x, state, config, name):
    return parts.rms_norm(x, state[f"{name}.weight"], config.get("rms_norm_eps", 1e-5))


def _attention(state, config, name, x, positions, segments):
    size = config["hidden_size"] // config["num_attention_heads"]
    found = parts.frequencies(size, config.get("rope_theta", 1e4), config.get("rope_scaling"))

    def turned(part):
        rows = _norm(
            parts.linear(x, state, f"{name}.{part}_proj"), state, config, f"{name}.{part}_norm"
        )
        at = [
            [parts.rotated(head, p, found) for head in row]
            for row, p in zip(rows.reshape(len(x), -1, size), positions, strict=True)
        ]
        return np.array(at)

    value = parts.linear(x, state, f"{name}.v_proj").reshape(len(x), -1, size)
    mixed = parts.attention(turned("q"), turned("k"), value, size**-0.5, segments)
    return parts.linear(mixed.reshape(len(x), -1), state, f"{name}.o_proj")
