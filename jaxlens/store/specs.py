"""What ``RUN.json`` can hold: its fields are compared with their kinds before anything uses them.

A spec is text that anybody can edit. Fields that are not known here are left to who reads them, so
that a spec of another version stays readable; those that are known have one kind in all versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MERGED = "merged"
"""Section that only the spec of merged runs has."""

_MOST = 2**62


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MOST < value < _MOST


def _count(value: Any) -> bool:
    return _whole(value) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_count, value.values()))


def _section(value: Any) -> bool:
    return isinstance(value, Mapping)


def _or_none(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


_SIZES = ("n_layer", "n_embd", "n_positions", "vocab_size")
_FIRST_FAMILY_SIZES = ("n_head", "n_inner")
"""Sizes that a spec has where it names no ``model_type``."""

_ARCHITECTURE = {
    **dict.fromkeys((*_SIZES, *_FIRST_FAMILY_SIZES), _count),
    "model_type": _text,
    "activation_function": _text,
    "layer_norm_epsilon": _number,
    **dict.fromkeys(("scale_attn_weights", "scale_attn_by_inverse_layer_idx"), _flag),
    "tie_word_embeddings": _flag,
    "bos_token_id": _or_none(_whole),
}
_SECTIONS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "model": {"sha256": _text, "dtype": _text, "architecture": _section},
    "model.architecture": _ARCHITECTURE,
    "tokenizer": {"sha256": _or_none(_text)},
    "corpus": {
        **dict.fromkeys(("sha256", "index_sha256", "kind", "bos"), _text),
        **dict.fromkeys(("n_tokens", "n_documents"), _count),
        "skipped": _counts,
        "keep": _texts,
    },
    "plan": dict.fromkeys(
        ("length", "overlap", "step_sequences", "steps_per_shard", "n_steps", "n_shards"), _count
    ),
    "lens": {
        **dict.fromkeys(("implementation", "decoder", "precision", "residuals"), _text),
        "top_k": _count,
        **dict.fromkeys(("tile", "block"), _or_none(_count)),
        "temperatures": _or_none(_numbers),
    },
    "store": {
        **dict.fromkeys(("rows", "tallies", "compression"), _text),
        "quantities": _texts,
        "shard_tokens": _or_none(_count),
    },
    "null": {"kind": _text, "seed": _whole},
    "type_means": {"sha256": _text},
    "token_counts": {"sha256": _text},
    MERGED: {"runs": _texts, "repeated_documents": _count, "type_means": _text},
}
_TOP = {"format_version": _count, "quantities": _texts, "seed": _whole}

_NEEDED = (
    *("model", "model.sha256", "model.architecture", "tokenizer", "corpus", "corpus.sha256"),
    *("corpus.n_tokens", "plan", "lens", "lens.decoder", "store", "seed", "null", "null.kind"),
    *(f"model.architecture.{name}" for name in _SIZES),
)
"""What every run has that was swept."""

_SWEPT = ("tokenizer", "corpus", "lens", "quantities", "null")
"""Sections that only a sweep writes; the shards of other programs have none, or one, of them."""


def odd(spec: Mapping[str, Any]) -> str:
    """What is wrong with the fields of a spec: the first of them; empty where nothing is."""
    for name, kind, value in _fields(spec):
        if not kind(value):
            return f"{name} makes no sense"
    if sum(section in spec for section in _SWEPT) > 1:
        is_first_family = _at(spec, "model.architecture.model_type") is None
        sizes = _FIRST_FAMILY_SIZES if is_first_family else ()
        for name in (*_NEEDED, *(f"model.architecture.{size}" for size in sizes)):
            if _at(spec, name) is None:
                return f"{name} is missing"
    return ""


def _fields(spec: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[Any], bool], Any]]:
    """Each known field that is there: its name, its kind and its value."""
    for name, kind in _TOP.items():
        if name in spec:
            yield name, kind, spec[name]
    for section, known in _SECTIONS.items():
        parent, _, last = section.rpartition(".")
        above = (_at(spec, parent) or {}) if parent else spec
        if last not in above:
            continue
        yield section, _section, above[last]
        for name, kind in known.items():
            if name in above[last]:
                yield f"{section}.{name}", kind, above[last][name]


def _at(spec: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where there is none."""
    value: Any = spec
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
