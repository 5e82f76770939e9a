"""Reading a decoded ``config.json`` as untrusted data, whatever the family.

A family reads an allow-list of keys with their types and bounds; every other key is ignored. No
library turns the file into a class, because a checkpoint's configuration has run code that way
(CVE-2026-4372, in spite of ``trust_remote_code=False``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlens import errors
from jaxlens.models import nanogpt

# Far beyond any published model; what they stop is a damaged file asking for terabytes.
_MAX_SIZE = {
    "n_layer": 1_000,
    "n_head": 10_000,
    "n_embd": 100_000,
    "n_positions": 10_000_000,
    "n_ctx": 10_000_000,
    "vocab_size": 10_000_000,
    "n_inner": 1_000_000,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 10_000,
    "hidden_size": 100_000,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 10_000_000,
    "original_max_position_embeddings": 10_000_000,
    "sliding_window": 10_000_000,
    "sliding_window_pattern": 1_000,
}
_MIN_VOCABULARY = 2

# Options that change what the network computes and that no code here computes.
_ALONE = "take a model that is a decoder alone: the lens has no encoder whose states to attend to"
_UNSUPPORTED = {
    "add_cross_attention": _ALONE,
    "is_encoder_decoder": _ALONE,
    "quantization_config": "take the weights that were quantized, or save them as float32: "
    "transformers' model.dequantize().save_pretrained(NEW)",
    "pruned_heads": "take the model before its heads were pruned",
}

# Prefixes of class names, for files too old to have a model_type.
_CLASSES = {"GPT2": "gpt2", "FlaxGPT2": "gpt2", "TFGPT2": "gpt2"}

LAYER_TYPES = ("full_attention", "sliding_attention")
"""What ``layer_types`` names: blocks that attend to all positions, and to those of a window."""

MEND = "correct that entry, or take the config.json that belongs to the weights"


def mapping(config: Any) -> Mapping[str, Any]:
    """A configuration under the names of ``config.json``, whatever object holds it.

    Raises:
        DataError: It is not a mapping, or its activation is unknown.
    """
    if callable(getattr(config, "to_dict", None)):
        config = config.to_dict()
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise errors.DataError(
            "config.json: not a JSON object", "give a mapping such as the decoded config.json"
        )
    return nanogpt.translate(config)


def model_type(config: Mapping[str, Any], supported: Iterable[str]) -> str:
    """``model_type``, or what ``architectures`` implies where old files leave it out.

    Args:
        config: See ``mapping``.
        supported: Types that the error lists.

    Raises:
        DataError: There is neither.
    """
    stated = config.get("model_type")
    if stated is not None:
        if not isinstance(stated, str):
            raise errors.DataError("config.json: model_type must be a string", MEND)
        return stated
    classes = config.get("architectures")
    listed = classes if isinstance(classes, (list, tuple)) else []
    names = [name for name in listed if isinstance(name, str)]
    for prefix, known in _CLASSES.items():
        if any(name.startswith(prefix) for name in names):
            return known
    if names:
        return names[0]
    raise errors.DataError(
        "config.json: model_type is missing",
        f'add "model_type", one of: {", ".join(supported)}',
    )


def refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Refuses options that change the network and that no family computes.

    Raises:
        DataError: Naming the option.
    """
    for key, remedy in _UNSUPPORTED.items():
        if config.get(key):
            raise errors.DataError(f"config.json: {key} is not supported", remedy)


def size(config: Mapping[str, Any], key: str) -> int:
    """A positive integer within the bound of its key.

    Raises:
        DataError: It is missing, not an integer or out of bounds.
    """
    value = config.get(key)
    if value is None:
        raise errors.DataError(f"config.json: {key} is missing", MEND)
    # bool is a subclass of int, and true is not a size.
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be an integer", MEND)
    if not 1 <= value <= _MAX_SIZE[key]:
        raise errors.DataError(f"config.json: {key} must be between 1 and {_MAX_SIZE[key]}", MEND)
    return value


def vocab_size(config: Mapping[str, Any]) -> int:
    """``vocab_size``; one token alone would leave nothing to predict.

    Raises:
        DataError: As for ``size``.
    """
    value = size(config, "vocab_size")
    if value < _MIN_VOCABULARY:
        raise errors.DataError(f"config.json: vocab_size must be at least {_MIN_VOCABULARY}", MEND)
    return value


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """A boolean, or ``default`` where the key is missing or null.

    Raises:
        DataError: It is something else.
    """
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be true or false", MEND)
    return value


def choice(config: Mapping[str, Any], key: str, names: Iterable[str], default: str) -> str:
    """One of some names, or ``default`` where the key is missing.

    Raises:
        DataError: It is not one of them.
    """
    value = config.get(key, default)
    if not isinstance(value, str):
        raise errors.DataError(f"config.json: {key} must be a string", MEND)
    if value not in names:
        raise errors.DataError(
            f"config.json: {key} {value[:80]!r} is not supported", f"supported: {', '.join(names)}"
        )
    return value


def epsilon(config: Mapping[str, Any], key: str, default: float = 1e-5) -> float:
    """Epsilon of a norm, between 1e-30 and 1.

    Raises:
        DataError: It is not a number, or out of bounds.
    """
    value = config.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be a number", MEND)
    # Below the smallest normal float32 the norm of a constant vector would be NaN.
    if not 1e-30 <= value <= 1.0:
        raise errors.DataError(f"config.json: {key} must be between 1e-30 and 1", MEND)
    return float(value)


def number(
    config: Mapping[str, Any], key: str, default: float | None, least: float, most: float
) -> float:
    """A number between two bounds, or ``default`` where the key is missing or null.

    Raises:
        DataError: It is missing and has no default, not a number, or out of bounds.
    """
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise errors.DataError(f"config.json: {key} must be a number", MEND)
    if not least <= value <= most:
        raise errors.DataError(f"config.json: {key} must be between {least:g} and {most:g}", MEND)
    return float(value)


def is_local(config: Mapping[str, Any], n_layer: int) -> tuple[bool, ...]:
    """Whether each block attends to a window, by ``layer_types``.

    Raises:
        DataError: It does not name one of ``LAYER_TYPES`` for each block.
    """
    listed = config.get("layer_types")
    if (
        not isinstance(listed, (list, tuple))
        or len(listed) != n_layer
        or not all(kind in LAYER_TYPES for kind in listed)
    ):
        raise errors.DataError(
            f"config.json: layer_types must name one of {', '.join(LAYER_TYPES)} "
            f"for each of {n_layer} layers",
            MEND,
        )
    return tuple(kind == LAYER_TYPES[1] for kind in listed)


def bos(config: Mapping[str, Any], vocabulary: int, default: int | None) -> int | None:
    """``bos_token_id``; None where it is null or outside of the vocabulary.

    Checkpoints shrunk from a larger vocabulary keep its number.

    Raises:
        DataError: It is not an integer.
    """
    value = config.get("bos_token_id", default)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.DataError("config.json: bos_token_id must be an integer or null", MEND)
    return value if 0 <= value < vocabulary else None
