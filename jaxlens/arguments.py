"""Arguments of the public functions: their checks, and the errors where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors


def described(value: Any) -> str:
    """The type of a value in a few words, for messages."""
    if value is None:
        return "None"
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{getattr(value, 'dtype', kind)} of shape {shape}"
    return f"a {kind}" if kind[0] not in "aeiouAEIOU" else f"an {kind}"


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number: Python's or NumPy's, and neither True nor False."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def whole(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """A whole number.

    Raises:
        ConfigError: It is something else, below ``least``, or above ``most``.
    """
    if is_whole(value) and most is not None and value > most:
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give at most {most:,}")
    if not is_whole(value) or (least is not None and value < least):
        more = "" if least is None else f" of at least {least}"
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give a whole number{more}")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """True or False; 0 and 1 count as them.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, (bool, np.bool_)) or (is_whole(value) and value in (0, 1)):
        return bool(value)
    raise errors.ConfigError(f"{name} is {errors.show(value)}", "give True or False")


def text(value: Any, name: str, example: str) -> str:
    """A text.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, str):
        return value
    raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give a text: {example}")


def one_of(value: Any, name: str, known: Iterable[str]) -> str:
    """One of some names.

    Raises:
        ConfigError: It is none of them.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"one of {', '.join(names)}")
    return value


def names(value: Any, name: str, example: str) -> list[str] | None:
    """Texts in a list, of which one may stand alone; None stays.

    Raises:
        ConfigError: They are something else.
    """
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else listed(value)
    if texts is None or not all(isinstance(one, str) for one in texts):
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give texts: {example}")
    return texts


def listed(value: Any) -> list[Any] | None:
    """What a list, a tuple, an array or the like holds; None for a single value."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return None
    try:
        return list(value)
    except TypeError:  # an array without axes
        return None


def pair(value: Any, name: str, example: str) -> tuple[Any, Any]:
    """Two values, in an order.

    Raises:
        ConfigError: They are something else.
    """
    values = listed(value) if isinstance(value, (Sequence, np.ndarray)) else None
    if values is None or len(values) != 2:
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give two: {example}")
    return values[0], values[1]


def path(value: Any, name: str, what: str) -> Path:
    """The path of a file or directory, of a name that the system can have.

    Args:
        value: Of the caller.
        name: Of the argument.
        what: What to give, for the hint.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise errors.ConfigError(f"{name} is {errors.show(value)}", f"give {what}")
    if not is_possible(os.fspath(value)):
        raise errors.ConfigError(
            f"{name} is {ascii(os.fspath(value))[:80]}, which no file can be called",
            f"give {what}, without NUL characters and lone surrogates",
        )
    return Path(value)


def is_possible(name: str) -> bool:
    """Whether the system can have a file of this name; some of its calls raise where not."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # a lone surrogate
        return False


class UnknownPlaceError(errors.ConfigError, IndexError):
    """There is no such row; an ``IndexError`` too, by which ``for`` knows the end of a sequence."""


def indexed(take: Callable[[], Any], count: int, noun: str) -> Any:
    """What indexing gives.

    Args:
        take: Does it, as NumPy does.
        count: Rows that there are.
        noun: What they are, in the plural.

    Raises:
        UnknownPlaceError: NumPy refuses.
    """
    try:
        return take()
    except (IndexError, TypeError, ValueError) as error:
        last = f"they count from 0 to {count - 1:,}" if count else "there are none"
        raise UnknownPlaceError(
            f"no such {noun}: {str(error).splitlines()[0]}",
            f"choose {noun} by a number, a slice, or an array of numbers or booleans; {last}",
        ) from None
