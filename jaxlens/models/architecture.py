"""``config.json`` to and from ``types.Architecture``.

The file is read as data: an allow-list of keys with their types and bounds, every other key
ignored. No library turns it into a class, because a checkpoint's configuration has run code that
way (CVE-2026-4372, in spite of ``trust_remote_code=False``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlens import errors, models, types

ACTIVATIONS = (
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
    "quick_gelu",
)
"""Names of ``activation_function`` that are computed."""

# Far beyond any GPT-2; what they stop is a damaged file asking for terabytes.
_SMALLEST_VOCABULARY = 2
_LARGEST = {
    "n_layer": 1_000,
    "n_head": 10_000,
    "n_embd": 100_000,
    "n_positions": 10_000_000,
    "n_ctx": 10_000_000,
    "vocab_size": 10_000_000,
    "n_inner": 1_000_000,
}

# GPT-2's <|endoftext|>, which a file that leaves the key out means.
_DEFAULT_BOS = 50256

# Options that change what the network computes and that no code here computes.
_ALONE = "take a model that is a decoder alone: the lens has no encoder whose states to attend to"
_REFUSED = {
    "add_cross_attention": _ALONE,
    "is_encoder_decoder": _ALONE,
    "quantization_config": "take the weights that were quantized, or save them as float32: "
    "transformers' model.dequantize().save_pretrained(NEW)",
    "pruned_heads": "take the model before its heads were pruned",
}

_MEND = "correct that entry, or take the config.json that belongs to the weights"

# What minGPT calls its sizes; all of them are one network.
_MINGPT = (
    *("gpt-mini", "gpt-micro", "gpt-nano", "gopher-44m", "openai-gpt"),
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", None),
)

# Keys of nanoGPT's and minGPT's configurations that have another name in transformers'.
_RENAMED = {"block_size": "n_positions"}
# nanoGPT's own configuration is recognised by its keys. Its blocks compute the exact GELU.
_NANOGPT_KEYS = ("block_size", "bias")
_NANOGPT = {"model_type": "gpt2", "activation_function": "gelu"}


def parse(config: Any) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Sizes must be there; options take GPT-2's defaults. A ``bos_token_id`` outside the vocabulary
    (checkpoints shrunk from GPT-2 keep 50256) means that there is none.

    Args:
        config: The decoded file, nanoGPT's ``model_args``, or an object of either library
            (``GPT2Config``, a dataclass).

    Raises:
        DataError: A key is missing, of the wrong type, out of bounds or asks for something that
            is not supported; the message names it.
    """
    config = _mapping(config)
    models.require(_model_type(config))
    for key, remedy in _REFUSED.items():
        if config.get(key):
            raise errors.DataError(f"config.json: {key} is not supported", remedy)
    n_embd, n_head = _size(config, "n_embd"), _size(config, "n_head")
    if n_embd % n_head:
        raise errors.DataError(
            f"config.json: n_embd {n_embd} is not a multiple of n_head {n_head}", _MEND
        )
    vocab_size = _size(config, "vocab_size")
    if vocab_size < _SMALLEST_VOCABULARY:
        raise errors.DataError(
            f"config.json: vocab_size must be at least {_SMALLEST_VOCABULARY}", _MEND
        )
    has_positions = config.get("n_positions") is not None
    has_inner = config.get("n_inner") is not None
    return types.Architecture(
        n_layer=_size(config, "n_layer"),
        n_head=n_head,
        n_embd=n_embd,
        n_positions=_size(config, "n_positions" if has_positions else "n_ctx"),
        vocab_size=vocab_size,
        n_inner=_size(config, "n_inner") if has_inner else 4 * n_embd,
        activation_function=_activation(config),
        layer_norm_epsilon=_epsilon(config),
        scale_attn_weights=_flag(config, "scale_attn_weights", True),
        scale_attn_by_inverse_layer_idx=_flag(config, "scale_attn_by_inverse_layer_idx", False),
        tie_word_embeddings=_flag(config, "tie_word_embeddings", True),
        bos_token_id=_bos(config, vocab_size),
    )


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face's ``GPT2Config`` both read."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": architecture.n_layer,
        "n_head": architecture.n_head,
        "n_embd": architecture.n_embd,
        "n_inner": architecture.n_inner,
        "n_positions": architecture.n_positions,
        "n_ctx": architecture.n_positions,
        "vocab_size": architecture.vocab_size,
        "activation_function": architecture.activation_function,
        "layer_norm_epsilon": architecture.layer_norm_epsilon,
        "scale_attn_weights": architecture.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": architecture.scale_attn_by_inverse_layer_idx,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": architecture.bos_token_id,
        # GPT-2 has one token for both; left out, readers would assume 50256.
        "eos_token_id": architecture.bos_token_id,
    }


def _mapping(config: Any) -> Mapping[str, Any]:
    """A configuration under the names of ``config.json``, whatever object it was given as."""
    if callable(getattr(config, "to_dict", None)):
        config = config.to_dict()
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise errors.DataError(
            "config.json: not a JSON object", "give a mapping such as the decoded config.json"
        )
    if "block_size" not in config or "n_positions" in config:
        return config
    renamed = {_RENAMED.get(key, key): value for key, value in config.items()}
    if "model_type" in config:  # minGPT, which computes GPT-2's own activation
        ours = config["model_type"] in _MINGPT
        return renamed | {"model_type": "gpt2"} if ours else renamed
    if "activation_function" not in config and not all(key in config for key in _NANOGPT_KEYS):
        raise errors.DataError(
            "config.json: block_size, but no activation_function",
            "models in the style of nanoGPT differ in it: add "
            '"activation_function": "gelu" (exact) or "gelu_new" (tanh)',
        )
    return {**_NANOGPT, **renamed}


def _model_type(config: Mapping[str, Any]) -> str:
    """``model_type``, or what ``architectures`` implies where old files leave it out."""
    stated = config.get("model_type")
    if stated is not None:
        if not isinstance(stated, str):
            raise errors.DataError("config.json: model_type must be a string", _MEND)
        return stated
    classes = config.get("architectures")
    listed = classes if isinstance(classes, (list, tuple)) else []
    names = [name for name in listed if isinstance(name, str)]
    if any(name.startswith(("GPT2", "FlaxGPT2", "TFGPT2")) for name in names):
        return "gpt2"
    if names:
        return names[0]
    raise errors.DataError(
        "config.json: model_type is missing",
        f'add "model_type", one of: {", ".join(models.FAMILIES)}',
    )


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if value is None:
        raise errors.DataError(f"config.json: {key} is missing", _MEND)
    # bool is a subclass of int, and true is no size.
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be an integer", _MEND)
    if not 1 <= value <= _LARGEST[key]:
        raise errors.DataError(f"config.json: {key} must be between 1 and {_LARGEST[key]}", _MEND)
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be true or false", _MEND)
    return value


def _activation(config: Mapping[str, Any]) -> str:
    value = config.get("activation_function", "gelu_new")
    if not isinstance(value, str):
        raise errors.DataError("config.json: activation_function must be a string", _MEND)
    if value not in ACTIVATIONS:
        raise errors.DataError(
            f"config.json: activation_function {value[:80]!r} is not supported",
            f"supported: {', '.join(ACTIVATIONS)}",
        )
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise errors.DataError("config.json: layer_norm_epsilon must be a number", _MEND)
    # Below the smallest normal float32 the layer norm of a constant vector would be NaN.
    if not 1e-30 <= value <= 1.0:
        raise errors.DataError("config.json: layer_norm_epsilon must be between 1e-30 and 1", _MEND)
    return float(value)


def _bos(config: Mapping[str, Any], vocab_size: int) -> int | None:
    value = config.get("bos_token_id", _DEFAULT_BOS)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.DataError("config.json: bos_token_id must be an integer or null", _MEND)
    return value if 0 <= value < vocab_size else None
