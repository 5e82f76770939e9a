"""GPT-NeoX."""

import numpy as np

from families import parts

_SIZES = {
    "model_type": "gpt_neox",
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "vocab_size": 4096,
}

CASES = {
    "gpt_neox-in-turn": {
        **{**_SIZES, "use_parallel_residual": False, "attention_bias": False},
        **{"tie_word_embeddings": True, "rotary_pct": 1.0, "rotary_emb_base": 500.0},
        **{"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    },
    "gpt_neox-extended": {
        **{**_SIZES, "num_attention_heads": 2, "rotary_pct": 0.5},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    # The names of transformers 5.
    "gpt_neox-parameters": {
        **{**_SIZES, "hidden_act": "relu"},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.75}
        },
    },
    "gpt_neox-unturned": {**_SIZES, "rotary_pct": 0.0},
    "gpt_neox": _SIZES,
}


def residuals(state, config, tokens, positions, segments):
    """Every stream of one sequence, ``[layer, position, embed]``."""
    stream = state["gpt_neox.embed_in.weight"][tokens]
    streams = [stream]
    for layer in range(config["num_hidden_layers"]):
        name = f"gpt_neox.layers.{layer}"
        normed = _norm(stream, state, config, f"{name}.input_layernorm")
        mixed = _attention(state, config, f"{name}.attention", normed, positions, segments)
        read = stream if config.get("use_parallel_residual", True) else stream + mixed
        normed = _norm(read, state, config, f"{name}.post_attention_layernorm")
        hidden = parts.ACTIVATIONS[config.get("hidden_act", "gelu")](
            parts.linear(normed, state, f"{name}.mlp.dense_h_to_4h")
        )
        stream = stream + mixed + parts.linear(hidden, state, f"{name}.mlp.dense_4h_to_h")
        streams.append(stream)
    return np.stack(streams)


def logits(state, config, stream):
    normed = _norm(stream, state, config, "gpt_neox.final_layer_norm")
    return normed @ state.get("embed_out.weight", state["gpt_neox.embed_in.weight"]).T


def _norm(x, state, config, name):
    gain, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return parts.layer_norm(x, gain, bias, config.get("layer_norm_eps", 1e-5))


def _attention(state, config, name, x, positions, segments):
    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads
    rope = config.get("rope_parameters", {})
    share = rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
    theta = rope.get("rope_theta", config.get("rotary_emb_base", 1e4))
    found = parts.frequencies(int(size * share), theta, config.get("rope_scaling"))
    rows = parts.linear(x, state, f"{name}.query_key_value")
    query, key, value = np.zeros((3, len(x), heads, size))
    for head in range(heads):
        first = 3 * size * head
        for at, position in enumerate(positions):
            row = rows[at, first : first + 3 * size]
            query[at, head] = parts.rotated(row[:size], position, found)
            key[at, head] = parts.rotated(row[size : 2 * size], position, found)
            value[at, head] = row[2 * size :]
    mixed = parts.attention(query, key, value, size**-0.5, segments)
    return parts.linear(mixed.reshape(len(x), -1), state, f"{name}.dense")
