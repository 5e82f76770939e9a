"""The ``config.json`` that the metadata of a GGUF file is equivalent to, and the names it uses.

A family describes the files of llama.cpp with ``Names``. What is not described there is refused by
its name: a setting that nobody reads may change the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxlens import errors, types
from jaxlens.files import untrusted
from jaxlens.models import rotary

FREQUENCIES = "rope_freqs.weight"
"""Tensor of what divides the rotary frequencies of Llama 3.1."""

Transform = Callable[[np.ndarray, types.Architecture], np.ndarray]

_MEND = "take a GGUF file of the model without it, or its safetensors"

# Llama 3.1, 3.2 and 3.3; the factor differs.
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Of factors that were computed in float32, from frequencies in float32.
_FACTOR_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Names:
    """What files of one architecture of llama.cpp call what a family has.

    Attributes:
        keys: Key of the metadata, after the name of the architecture -> key of ``config.json``.
        tensors: Name of a tensor, without its block, ``.weight`` or ``.bias`` -> PyTorch's.
        implied: Keys of ``config.json`` that the architecture alone decides, ``model_type`` first.
        flags: Key of ``config.json`` that is true where the file has the tensor that follows.
        transforms: Name of a tensor, as in ``tensors`` -> what makes PyTorch's value of it.
        complete: Gives further keys of ``config.json``, which follow from those that are known.
    """

    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    implied: Mapping[str, Any]
    flags: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda config: {}


def architecture_name(metadata: Mapping[str, Any], where: str) -> str:
    """Name that llama.cpp gives the network of a file.

    Raises:
        DataError: There is none, or the file is no model by itself.
    """
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise errors.DataError(
            f"{where}: a GGUF file of the type {errors.show(kind)}, not a model",
            "give the file of the model itself",
        )
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise errors.DataError(f"{where}: general.architecture is missing", "fetch the model again")
    return name


def equivalent(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    names: Names,
    factors: Callable[[], np.ndarray],
    where: str,
) -> dict[str, Any]:
    """The ``config.json`` that says what the metadata says.

    Args:
        metadata: Of the file.
        shapes: Of its tensors.
        names: Of its architecture.
        factors: Reads ``FREQUENCIES``, where the file has it.
        where: What to call the file.

    Raises:
        DataError: A setting is not known, or two contradict each other; the message names it.
    """
    prefix = f"{metadata['general.architecture']}."
    stated = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    config = dict(names.implied)
    config |= {key: _plain(stated.pop(own)) for own, key in names.keys.items() if own in stated}
    embedding = shapes.get(_tensor(names, "embed_tokens") + ".weight", (0,))
    config["vocab_size"] = embedding[0]
    config["tie_word_embeddings"] = f"{_tensor(names, 'lm_head')}.weight" not in shapes
    config["bos_token_id"] = metadata.get("tokenizer.ggml.bos_token_id")
    config |= {key: tensor in shapes for key, tensor in names.flags.items()}
    embed, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(embed, int) and isinstance(heads, int) and heads > 0:
        config.setdefault("head_dim", embed // heads)
    for own, key in (
        ("attention.value_length", "head_dim"),
        ("rope.dimension_count", "head_dim"),
        ("vocab_size", "vocab_size"),
    ):
        value = stated.pop(own, config.get(key))
        if isinstance(value, np.ndarray) or value != config.get(key):
            raise errors.DataError(
                f"{where}: {prefix}{own} is {errors.show(value)}, and only "
                f"{config.get(key)} is supported, as {key}",
                _MEND,
            )
    config |= names.complete(config)
    config |= _scaling(stated, config, FREQUENCIES in shapes, factors, where)
    for key, value in stated.items():
        # What asks for nothing is no setting.
        if isinstance(value, (np.ndarray, list)) or value not in (0, False, "", "none"):
            raise errors.DataError(
                f"{where}: the setting {prefix}{untrusted.shown(key)} is not known", _MEND
            )
    return config


def _plain(value: Any) -> Any:
    """Numbers were rounded to float32; the shortest decimal is what they were rounded from."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _tensor(names: Names, torch: str) -> str:
    return next(own for own, other in names.tensors.items() if other == torch)


def _scaling(
    stated: dict[str, Any],
    config: Mapping[str, Any],
    has_factors: bool,
    factors: Callable[[], np.ndarray],
    where: str,
) -> dict[str, Any]:
    """``rope_scaling``; what says so is taken from ``stated``."""
    kind, factor = stated.pop("rope.scaling.type", "none"), stated.pop("rope.scaling.factor", 0.0)
    trained = stated.pop("rope.scaling.original_context_length", 0)
    finetuned = stated.pop("rope.scaling.finetuned", False)
    del trained, finetuned  # say nothing that the type and the factor do not say
    if has_factors:
        if kind not in ("none", "llama3"):
            raise errors.DataError(
                f"{where}: {FREQUENCIES} beside rope.scaling.type {errors.show(kind)}", _MEND
            )
        return {"rope_scaling": _llama3(config, factors(), where)}
    if kind == "none":
        return {}
    return {"rope_scaling": {"rope_type": kind, "factor": factor}}


def _llama3(config: Mapping[str, Any], factors: np.ndarray, where: str) -> dict[str, Any]:
    """The scaling of Llama 3.1 whose factors a file has; others are refused."""
    size = config.get("head_dim")
    if isinstance(size, int) and factors.shape == (size // 2,):
        scaling = {**_LLAMA3, "factor": round(float(factors.max()), 3)}
        base = {"rope_theta": config.get("rope_theta")}
        plain = rotary.parse(base).frequencies(size)
        scaled = rotary.parse({**base, "rope_scaling": scaling}).frequencies(size)
        if np.allclose(plain / scaled, factors, rtol=_FACTOR_TOLERANCE, atol=0):
            return scaling
    raise errors.DataError(
        f"{where}: {FREQUENCIES} holds other factors than those of Llama 3.1", _MEND
    )


def torch_names(
    names: Names, prefix: str, blocks: str, found: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Of the tensors that are known: their name -> name in ``Names.tensors``, PyTorch's name.

    Args:
        names: Of the architecture.
        prefix: Of ``layout.Layout``.
        blocks: Likewise.
        found: Names in the file.
    """
    known: dict[str, tuple[str, str]] = {}
    for name in found:
        match = re.fullmatch(r"(?:blk\.(0|[1-9][0-9]{0,5})\.)?(\w+)\.(weight|bias)", name, re.ASCII)
        if match is None or match[2] not in names.tensors:
            continue
        number, own, kind = match.groups()
        torch = f"{names.tensors[own]}.{kind}"
        block = f"{blocks}.{number}." if number else ""
        is_head = names.tensors[own] == "lm_head"
        known[name] = own, torch if is_head else f"{prefix}.{block}{torch}"
    return known
