"""Values of settings: what they are taken for, and how messages show them."""

from __future__ import annotations

import contextlib
import reprlib
import typing
from typing import Any, Literal

# A value that is shown in a message may have megabytes.
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel = 2
_SHOWN.maxstring = _SHOWN.maxlong = _SHOWN.maxother = 80


def show(value: Any) -> str:
    """A value for a message; it may have megabytes, or digits that Python refuses to print."""
    try:
        return _SHOWN.repr(value)
    except ValueError:
        return "a number of very many digits"


def as_text(value: float) -> str | None:
    """A number as it is written, for a setting that is text; None for one of too many digits."""
    with contextlib.suppress(ValueError):
        return str(value)
    return None


def as_items(kind: Any, value: Any) -> Any:
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


def spell(kind: Any) -> str:
    """A type in words, for a hint."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(str(v) for v in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        numbers = typing.get_args(kind)[0] is float
        return "a list of numbers" if numbers else "a list of strings"
    return {int: "a whole number of at most 64 bits", str: "a string", bool: "true or false"}.get(
        kind, str(kind)
    )
