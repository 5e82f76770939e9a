"""Values of the configuration: conversion of texts and YAML values, and their ranges."""

from __future__ import annotations

import contextlib
import decimal
import difflib
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxlens import designs, errors, schema

if TYPE_CHECKING:
    from jaxlens.config import CorpusConfig, RunConfig

WORD = 2**64
"""No number of the configuration has more bits."""

AUTO = "auto"
"""Value of ``shard`` that leaves it to the scheduler's variables; see ``sweep.ranks``."""

# Of a number that is written as text; within the precision of ``decimal``.
_MAX_DIGITS = 24


def convert(key: str, value: Any, kind: Any, where: str) -> Any:
    """The value as one of the kinds of an annotation.

    Args:
        key: Dotted name of the setting.
        value: From YAML, a variable, the command line or a caller.
        kind: Annotation of the field.
        where: Where the value stands, for the message.

    Raises:
        ConfigError: It is none of them.
    """
    # ``Literal[...] | None`` is a union of the older kind.
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    kinds = typing.get_args(kind) if is_union else (kind,)
    if value is None and type(None) in kinds:
        return None
    options = [k for k in kinds if k is not type(None)]
    for option in options:
        converted = _as(option, value)
        if converted is not None:
            return converted
    wanted = " or ".join(_spell(option) for option in options)
    raise errors.ConfigError(f"{key} is {errors.show(value)} in {where}", f"expected {wanted}")


def validate(config: RunConfig) -> None:
    """Refuses values that have the right type but make no sense.

    Raises:
        ConfigError: Naming the key.
    """
    positive = {
        "plan.step_sequences": config.plan.step_sequences,
        "lens.top_k": config.lens.top_k,
        "store.shard_tokens": config.store.shard_tokens,
        "plan.length": config.plan.length,
        "corpus.limit": config.corpus.limit,
        "devices": config.devices,
        "shard_count": config.shard_count,
        "mesh.model": config.mesh.model,
        "lens.tile": config.lens.tile,
        "lens.block": config.lens.block,
        "corpus.encode_seconds": config.corpus.encode_seconds,
    }
    for key, value in positive.items():
        if value is not None and value < 1:
            raise errors.ConfigError(f"{key} is {value}", "give a number of at least 1")
    if not -WORD // 2 <= config.seed < WORD // 2:
        # Only 64 bits count: with more, two specs would mean one run.
        raise errors.ConfigError(f"seed is {config.seed}", "give a number from -2**63 to 2**63 - 1")
    for key, value in {"plan.overlap": config.plan.overlap, "grace": config.grace}.items():
        if value < 0:
            raise errors.ConfigError(f"{key} is {value}", "give 0 or more")
    if not config.corpus.paths:
        raise errors.ConfigError("corpus.paths is empty", "name at least one file or folder")
    separator = config.corpus.separator
    if (
        separator is not None
        and not separator.encode("utf-8", "ignore").decode() == separator != ""
    ):
        raise errors.ConfigError(
            f"corpus.separator is {errors.show(separator)}", "give some text, or leave it out"
        )
    _require_alone(config.corpus)
    if config.corpus.keep:
        _require_fields(config.corpus.keep, config.corpus.paths)
    if config.shard != AUTO:
        shard_of(config.shard)


def _require_alone(corpus: CorpusConfig) -> None:
    made = [path for path in corpus.paths if path.startswith(designs.PREFIXES)]
    for name in made:
        if name not in designs.CORPORA:
            (near,) = difflib.get_close_matches(name[:80], designs.CORPORA, n=1, cutoff=0)
            raise errors.ConfigError(f"no corpus {errors.show(name)}", f"did you mean {near}?")
    if made and len(corpus.paths) > 1:
        raise errors.ConfigError(
            f"corpus.paths names {made[0]} and other text", "give each a run of its own"
        )


def _require_fields(names: Sequence[str], paths: Sequence[str]) -> None:
    """Refuses fields that cannot be kept.

    Args:
        names: Fields, as ``corpus.keep`` has them.
        paths: What is read.

    Raises:
        ConfigError: They are too many, repeated, no names, or of a corpus that has no fields.
    """
    if len(names) > schema.MAX_FIELDS or len(set(names)) < len(names):
        raise errors.ConfigError(
            f"corpus.keep names {len(names)} fields",
            f"name each once, at most {schema.MAX_FIELDS}",
        )
    for name in names:
        if not 0 < len(name.encode("utf-8", "replace")) <= schema.STRING_BYTES or "\0" in name:
            raise errors.ConfigError(
                f"corpus.keep names the field {name[:80]!r}", "give the name of a field"
            )
    if any(path.startswith(designs.PREFIXES) for path in paths):
        raise errors.ConfigError(
            f"corpus.keep with {paths[0]:.80}, whose documents have no fields",
            "leave out corpus.keep",
        )


def shard_of(text: str | None) -> tuple[int, int]:
    """Reads ``I/N``, counting from 0; None is ``0/1``.

    Raises:
        ConfigError: Not of that form, or I is not below N.
    """
    if text is None:
        return 0, 1
    index, slash, total = text.partition("/")
    if slash and is_number(index) and is_number(total) and int(index) < int(total):
        return int(index), int(total)
    raise errors.ConfigError(
        f"shard is {text!r}", "write I/N with I from 0 to N-1, such as 0/4, or auto"
    )


def is_number(text: str) -> bool:
    """Whether a text is a number of at most nine ASCII digits."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def _as(kind: Any, value: Any) -> Any:
    """The value as ``kind``, or None where it is not one."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value if value in typing.get_args(kind) else None
    if origin is tuple:
        return _as_items(typing.get_args(kind)[0], value)
    if kind is int:
        number = count(value)
        return number if number is None or -WORD < number < WORD else None
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _as_text(value)
    return value if isinstance(value, kind) else None


def count(value: Any) -> int | None:
    """An integer, also written ``20k``, ``10M``, ``1G`` or ``1_000``; None if it is none.

    Letters of either case are decimal: thousand, million, and billion as ``G`` or ``B``.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    text = value.replace("_", "")
    factor = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}.get(text[-1:].lower(), 1)
    digits = text[:-1] if factor > 1 else text
    try:
        number = decimal.Decimal(digits) * factor
    except ArithmeticError:
        return None
    sensible = number.is_finite() and number.adjusted() < _MAX_DIGITS
    return int(number) if sensible and number == number.to_integral_value() else None


def _as_text(value: float) -> str | None:
    """A number as it is written, for a setting that is text; None for one of too many digits."""
    with contextlib.suppress(ValueError):
        return str(value)
    return None


def _as_items(kind: Any, value: Any) -> Any:
    """The value as a tuple of strings or of numbers, or None where it is not one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        return None
    if kind is float:
        ok = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items)
        with contextlib.suppress(OverflowError):  # an integer beyond the largest float
            return tuple(float(item) for item in items) if ok else None
        return None
    return tuple(items) if all(isinstance(item, str) for item in items) else None


def _spell(kind: Any) -> str:
    """A type in words, for a hint."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        numbers = typing.get_args(kind)[0] is float
        return "a list of numbers" if numbers else "a list of strings"
    words = {int: "a whole number of at most 64 bits, such as 500000, 20k or 10M", str: "a string"}
    return (words | {bool: "true or false"}).get(kind, str(kind))
