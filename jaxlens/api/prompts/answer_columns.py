"""Answers to prompts as columns: whatever the caller gives, one value for each prompt and name."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from jaxlens import arguments, errors

MAX_ANSWERS = 200
"""Answers to a prompt, candidates included: each is a set of columns."""


class _Padding:
    def __repr__(self) -> str:
        return "PADDING"


PADDING = _Padding()
"""What fills the list of a prompt that has fewer candidates than another one."""

NAME = "answer"
"""Name of answers that are given without one."""


def columns(answers: Any, count: int) -> dict[str, list[Any]]:
    """Answers as named columns of one value a prompt.

    Args:
        answers: See ``jaxlens.read_prompts``.
        count: Prompts.

    Returns:
        Texts, token ids and None by name; candidates in lists become columns ``name.1``, ..., and
        shorter lists end in `PADDING`.

    Raises:
        ConfigError: There are not as many answers as prompts, or some have another type.
    """
    if answers is None:
        return {}
    if isinstance(answers, Mapping):
        named: dict[str, list[Any]] = {}
        for name, value in answers.items():
            own = _column(str(name), value, count)
            if twice := [one for one in own if one in named]:
                raise errors.ConfigError(f"two answers are called {twice[0]!r}", "rename one")
            named |= own
        return _checked(named)
    if not _is_one(answers):
        answers = _listed(answers, "answers are")
        if any(isinstance(one, Mapping) for one in answers):
            return _records(answers, count)
    return _checked(_column(NAME, answers, count))


def _checked(named: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len(named) > MAX_ANSWERS:
        raise errors.ConfigError(
            f"{len(named):,} answers to a prompt", f"give at most {MAX_ANSWERS}; top_k ranks others"
        )
    if "id" in named:
        raise errors.ConfigError(
            "an answer is called 'id', whose token would hide the prompt's own token_id",
            "rename it",
        )
    return named


def _records(answers: list[Any], count: int) -> dict[str, list[Any]]:
    if not all(is_missing(one) or isinstance(one, Mapping) for one in answers):
        raise errors.ConfigError(
            "answers mix mappings with other values", "give a mapping of names for every prompt"
        )
    known = [{} if is_missing(one) else one for one in answers]
    names = dict.fromkeys(name for one in known for name in one)
    return columns({name: [one.get(name) for one in known] for name in names}, count)


def _column(name: str, value: Any, count: int) -> dict[str, list[Any]]:
    if _is_one(value):
        return {name: [_value(name, value)] * count}
    values = _listed(value, f"answer {name!r} is")
    if len(values) != count:
        raise errors.ConfigError(
            f"{len(values)} answers {name!r} for {count} prompts",
            "give one for each prompt; a single text, or {name: text}, is for all of them",
        )
    if not any(isinstance(one, (list, tuple, np.ndarray)) for one in values):
        return {name: [_value(name, one) for one in values]}
    values = [one.item() if isinstance(one, np.ndarray) and not one.ndim else one for one in values]
    # A prompt without any candidate lacks one.
    lists = [[one] if _is_one(one) else list(one) or [None] for one in values]
    width = max(map(len, lists))
    return {
        f"{name}.{number + 1}": [
            _value(name, one[number]) if number < len(one) else PADDING for one in lists
        ]
        for number in range(width)
    }


def require_order(what: str, value: Any) -> None:
    """Refuses what has no order of its own, and tables, whose elements are names.

    Args:
        what: The beginning of the message: what it is, and ``is`` or ``are``.
        value: Of the caller.

    Raises:
        ConfigError: Saying what it is.
    """
    if hasattr(value, "columns"):
        raise errors.ConfigError(f"{what} a table", "give a column of it: table['name']")
    if isinstance(value, (Mapping, Set)):
        raise errors.ConfigError(f"{what} a {type(value).__name__}", "give a list")


def _listed(value: Any, what: str) -> list[Any]:
    """What is not a single answer, as a list.

    Raises:
        ConfigError: It has no order, or is something else.
    """
    require_order(what, value)
    if isinstance(value, np.ndarray) and not value.ndim:
        value = [value.item()]
    values = arguments.listed(value)
    if values is None:
        raise errors.ConfigError(
            f"{what} {arguments.described(value)}",
            "give a text or a token id for each prompt, or a mapping of names to them",
        )
    return values


def _is_one(value: Any) -> bool:
    return isinstance(value, (str, int, float, np.integer)) or is_missing(value)


def is_missing(value: Any) -> bool:
    """None, and what data frames have in its place."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _value(name: str, value: Any) -> str | int | None:
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise errors.ConfigError(
        f"answer {name!r} is {errors.show(value)}, a {type(value).__name__}",
        "give a text or a token id",
    )


def is_given(value: str | int | _Padding | None) -> bool:
    """Whether a value of `columns` is an answer."""
    return value is not None and value is not PADDING
