"""``config.json`` of Gemma 1 to 3.

They are one block with options: norms behind attention and MLP too (2, 3), caps of scores and
logits (2), norms of query and key (3), and blocks that attend to a window (2, 3), which in Gemma 3
have rotary frequencies of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlens import errors, types
from jaxlens.models import activations, config_json, llama_config, rotary

CLASSES = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
"""Model type -> class of transformers."""

# Blocks from one that attends to all positions to the next, and the window of the others.
_PATTERN = {"gemma2": 2, "gemma3_text": 6}
_WINDOW = 4096

# Caps that files of Gemma 2 which leave them out mean; null is none.
_CAPS = {"gemma2": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}}

# Sizes that the text_config of Gemma 3 leaves out; those that it gives vary.
_TEXT_SIZES = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
}

_BOS = 2
_HEAD_SIZE = 256
_ACTIVATION = "gelu_pytorch_tanh"


@dataclasses.dataclass(frozen=True)
class Options:
    """What these models have beside the sizes of every family.

    Attributes:
        n_head: Heads of queries.
        n_kv_head: Heads of keys and values; ``n_head`` is a multiple.
        head_size: Entries of a head.
        n_inner: Width of the hidden layer of the gated MLP.
        activation_function: Of the gate, one of ``activations.ACTIVATIONS``.
        rms_norm_eps: Of every norm.
        rope: Rotary frequencies of the blocks that attend to all positions.
        local_rope: Of those that attend to a window; None where they have the same.
        query_scalar: Scores are divided by its square root.
        attention_bias: Whether the projections of attention have biases.
        norms_heads: Whether queries and keys are normalised head by head.
        norms_outputs: Whether the outputs of attention and MLP are normalised.
        windows: Positions that each block attends to, 0 for all; empty where all attend to all.
        attention_softcap: Cap of the scores, see ``attention.causal``.
        final_softcap: Cap of the logits, see ``types.Unembed``.
    """

    n_head: int
    n_kv_head: int
    head_size: int
    n_inner: int
    activation_function: str = _ACTIVATION
    rms_norm_eps: float = 1e-6
    rope: rotary.Rope = dataclasses.field(default_factory=rotary.Rope)
    local_rope: rotary.Rope | None = None
    query_scalar: float = 256.0
    attention_bias: bool = False
    norms_heads: bool = False
    norms_outputs: bool = False
    windows: tuple[int, ...] = ()
    attention_softcap: float | None = None
    final_softcap: float | None = None


def parse(config: Mapping[str, Any]) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Sizes must be there, but for the size of a head; options take the defaults of transformers. Of
    a ``gemma3``, which reads images too, it is that of the text model, a ``gemma3_text``.

    Raises:
        DataError: A key is missing, of the wrong type, out of bounds or asks for something that
            is not computed here; the message names it.
    """
    if config["model_type"] == "gemma3":
        config = _text_config(config)
    model_type = config["model_type"]
    if config_json.flag(config, "use_bidirectional_attention", False):
        raise errors.DataError(
            "config.json: use_bidirectional_attention is not supported",
            "take a model that is a decoder: embedding models look at what follows, "
            "and have no head",
        )
    n_layer = config_json.size(config, "num_hidden_layers")
    n_embd = config_json.size(config, "hidden_size")
    vocab_size = config_json.vocab_size(config)
    return types.Architecture(
        n_layer=n_layer,
        n_embd=n_embd,
        n_positions=config_json.size(config, "max_position_embeddings"),
        vocab_size=vocab_size,
        tie_word_embeddings=config_json.flag(config, "tie_word_embeddings", True),
        bos_token_id=config_json.bos(config, vocab_size, _BOS),
        model_type=model_type,
        options=_options(config, model_type, n_embd, n_layer),
    )


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model of a checkpoint that reads images too, with the sizes that it leaves out.

    Raises:
        DataError: It is not of that form.
    """
    text = config.get("text_config")
    if not isinstance(text, Mapping) or text.get("model_type") != "gemma3_text":
        raise errors.DataError(
            "config.json: text_config must be that of a gemma3_text model", config_json.MEND
        )
    config_json.refuse_unsupported(text)
    return {**_TEXT_SIZES, **text}


def _options(config: Mapping[str, Any], model_type: str, n_embd: int, n_layer: int) -> Options:
    n_head, n_kv_head, head_size = llama_config.heads(config, n_embd, _HEAD_SIZE)
    rope, local_rope = _ropes(config, model_type)
    scalar = float(head_size)
    if model_type != "gemma":
        scalar = config_json.number(config, "query_pre_attn_scalar", 256.0, 1e-6, 1e6)
    return Options(
        n_head=n_head,
        n_kv_head=n_kv_head,
        head_size=head_size,
        n_inner=config_json.size(config, "intermediate_size"),
        activation_function=_activation(config, model_type),
        rms_norm_eps=config_json.epsilon(config, "rms_norm_eps", 1e-6),
        rope=rope,
        local_rope=local_rope,
        query_scalar=scalar,
        attention_bias=config_json.flag(config, "attention_bias", False),
        norms_heads=model_type == "gemma3_text",
        norms_outputs=model_type != "gemma",
        windows=_windows(config, model_type, n_layer),
        attention_softcap=_cap(config, model_type, "attn_logit_softcapping"),
        final_softcap=_cap(config, model_type, "final_logit_softcapping"),
    )


def _activation(config: Mapping[str, Any], model_type: str) -> str:
    """Activation of the gate; early files of Gemma 1 say ``gelu`` and mean its approximation."""
    names = activations.ACTIVATIONS
    if config.get("hidden_activation") is not None or model_type != "gemma":
        found = {"hidden_activation": config.get("hidden_activation") or _ACTIVATION}
        return config_json.choice(found, "hidden_activation", names, _ACTIVATION)
    found = config_json.choice(config, "hidden_act", names, _ACTIVATION)
    return _ACTIVATION if found == "gelu" else found


def _cap(config: Mapping[str, Any], model_type: str, key: str) -> float | None:
    value = config.get(key, _CAPS.get(model_type, {}).get(key))
    if value is None or model_type == "gemma":
        return None
    return config_json.number({key: value}, key, None, 1e-3, 1e6)


def _ropes(config: Mapping[str, Any], model_type: str) -> tuple[rotary.Rope, rotary.Rope | None]:
    """Frequencies of the blocks that attend to all positions, and of the others."""
    if model_type != "gemma3_text":
        return rotary.parse(config), None
    by_kind = config.get("rope_parameters")
    if by_kind is None:
        local = {"rope_theta": config.get("rope_local_base_freq")}
        return rotary.parse(config, 1e6), rotary.parse(local, 1e4)
    if not isinstance(by_kind, Mapping) or not set(by_kind) <= set(config_json.LAYER_TYPES):
        raise errors.DataError(
            f"config.json: rope_parameters must have {' and '.join(config_json.LAYER_TYPES)}",
            config_json.MEND,
        )
    whole, local = ({"rope_parameters": by_kind.get(kind)} for kind in config_json.LAYER_TYPES)
    return rotary.parse(whole, 1e6), rotary.parse(local, 1e4)


def _windows(config: Mapping[str, Any], model_type: str, n_layer: int) -> tuple[int, ...]:
    """Windows of the blocks, by ``layer_types`` or in the pattern of the model type."""
    if model_type == "gemma":
        return ()
    if config.get("layer_types") is not None:
        local = config_json.is_local(config, n_layer)
    else:
        found = {"sliding_window_pattern": _PATTERN[model_type]}
        if model_type == "gemma3_text" and config.get("sliding_window_pattern") is not None:
            found = {"sliding_window_pattern": config["sliding_window_pattern"]}
        pattern = config_json.size(found, "sliding_window_pattern")
        local = tuple((layer + 1) % pattern != 0 for layer in range(n_layer))
    if not any(local):
        return ()
    window = config_json.size({"sliding_window": _WINDOW, **config}, "sliding_window")
    return tuple(window if one else 0 for one in local)


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face both read."""
    options: Options = architecture.options
    kind, scalar = architecture.model_type, options.query_scalar
    config: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "num_hidden_layers": architecture.n_layer,
        "hidden_size": architecture.n_embd,
        "max_position_embeddings": architecture.n_positions,
        "vocab_size": architecture.vocab_size,
        "num_attention_heads": options.n_head,
        "num_key_value_heads": options.n_kv_head,
        "head_dim": options.head_size,
        "intermediate_size": options.n_inner,
        "rms_norm_eps": options.rms_norm_eps,
        "attention_bias": options.attention_bias,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": architecture.bos_token_id,
        **rotary.dump(options.rope),
    }
    if kind == "gemma":
        return config | {"hidden_act": options.activation_function, "hidden_activation": None}
    if options.local_rope is not None:
        config |= _dumped_ropes(options.rope, options.local_rope)
    return config | {
        "hidden_activation": options.activation_function,
        # transformers takes nothing but a whole number.
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
        "sliding_window": max(options.windows, default=0) or _WINDOW,
        "layer_types": [
            config_json.LAYER_TYPES[window > 0]
            for window in options.windows or (0,) * architecture.n_layer
        ],
        "attn_logit_softcapping": options.attention_softcap,
        "final_logit_softcapping": options.final_softcap,
    }


def _dumped_ropes(rope: rotary.Rope, local: rotary.Rope) -> dict[str, Any]:
    """In the form of 2025 too where the old one cannot say it, which rescales only one of them."""
    if local.kind == "default":
        return {"rope_local_base_freq": local.theta}
    both = zip(config_json.LAYER_TYPES, (rope, local), strict=True)
    dumped = {kind: rotary.dump(one) for kind, one in both}
    return {
        "rope_parameters": {
            kind: {
                "rope_type": "default",
                **(found["rope_scaling"] or {}),
                "rope_theta": found["rope_theta"],
            }
            for kind, found in dumped.items()
        }
    }
