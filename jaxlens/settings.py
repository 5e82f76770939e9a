"""Values of settings: what a text or a YAML value is taken for, and what else was wanted."""

from __future__ import annotations

import contextlib
import decimal
import types
import typing
from typing import Any, Literal

from jaxlens import errors

WORD = 2**64
"""No number of the configuration has more bits."""

# Of a number that is written as text; within the precision of ``decimal``.
_MOST_DIGITS = 24


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
    if isinstance(kind, types.UnionType) and value is None and type(None) in typing.get_args(kind):
        return None
    options = [
        k
        for k in (typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,))
        if k is not type(None)
    ]
    for option in options:
        converted = _as(option, value)
        if converted is not None:
            return converted
    wanted = " or ".join(_spell(option) for option in options)
    raise errors.ConfigError(f"{key} is {errors.show(value)} in {where}", f"expected {wanted}")


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
    sensible = number.is_finite() and number.adjusted() < _MOST_DIGITS
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
        return " or ".join(str(v) for v in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        numbers = typing.get_args(kind)[0] is float
        return "a list of numbers" if numbers else "a list of strings"
    return {int: "a whole number of at most 64 bits", str: "a string", bool: "true or false"}.get(
        kind, str(kind)
    )
