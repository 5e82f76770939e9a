"""Answers to prompts: which token stands for each, and what is to be known about the choice."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlens import arguments, errors
from jaxlens.api.prompts import spacing

MAX_ANSWERS = 200
"""Answers to a prompt, candidates included: each is a set of columns."""


class _Padding:
    def __repr__(self) -> str:
        return "PADDING"


PADDING = _Padding()
"""What fills the list of a prompt that has fewer candidates than another one."""

NAME = "answer"
"""Name of answers that are given without one."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The tokens that stand for the answers of some prompts.

    Attributes:
        names: Names of the answers.
        text: What was encoded, with its leading space; None where a prompt has no such answer.
        token: First token of the text; -1 where there is none that the model knows.
        n_tokens: Tokens of the whole text: 1 says that the token is the answer, more that it is
            only how the answer begins; 0 where there is none.
        space_added: Whether a leading space was put before what was given.
        collides: Whether another answer of the same prompt begins with the same token, so that
            the two cannot be told apart by it.
        padding: Whether there is none because another prompt has more candidates; without a token
            and no padding, the answer is missing.
    """

    names: tuple[str, ...]
    text: np.ndarray
    token: Int[np.ndarray, "prompt answer"]
    n_tokens: Int[np.ndarray, "prompt answer"]
    space_added: Bool[np.ndarray, "prompt answer"]
    collides: Bool[np.ndarray, "prompt answer"]
    padding: Bool[np.ndarray, "prompt answer"]

    def __getitem__(self, prompts: Any) -> Answers:
        """Those of some prompts.

        Raises:
            ConfigError: There are no such prompts; it is an ``IndexError`` too.
        """
        fields = (self.text, self.token, self.n_tokens, self.space_added, self.collides)
        fields = (*fields, self.padding)

        def take() -> Answers:
            return Answers(self.names, *(field[prompts] for field in fields))

        return arguments.indexed(take, len(self.text), "prompts")

    def counts(self) -> dict[str, int]:
        """How many answers are one token, are longer, got a space, collide, or are not there."""
        return {
            "are one token": int((self.n_tokens == 1).sum()),
            "are longer and stand for their first token": int((self.n_tokens > 1).sum()),
            "got a leading space": int(self.space_added.sum()),
            "begin as another answer of the prompt does": int(self.collides.sum()),
            "are missing": int(((self.token < 0) & ~self.padding).sum()),
        }


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
        found: dict[str, list[Any]] = {}
        for name, value in answers.items():
            mine = _column(str(name), value, count)
            if twice := [one for one in mine if one in found]:
                raise errors.ConfigError(f"two answers are called {twice[0]!r}", "rename one")
            found |= mine
        return _checked(found)
    if not _is_one(answers):
        answers = _listed(answers, "answers are")
        if any(isinstance(one, Mapping) for one in answers):
            return _records(answers, count)
    return _checked(_column(NAME, answers, count))


def _checked(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len(found) > MAX_ANSWERS:
        raise errors.ConfigError(
            f"{len(found):,} answers to a prompt", f"give at most {MAX_ANSWERS}; top_k ranks others"
        )
    if "id" in found:
        raise errors.ConfigError(
            "an answer is called 'id', whose token would hide the prompt's own token_id",
            "rename it",
        )
    return found


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
    given = _listed(value, f"answer {name!r} is")
    if len(given) != count:
        raise errors.ConfigError(
            f"{len(given)} answers {name!r} for {count} prompts",
            "give one for each prompt; a single text, or {name: text}, is for all of them",
        )
    if not any(isinstance(one, (list, tuple, np.ndarray)) for one in given):
        return {name: [_value(name, one) for one in given]}
    given = [one.item() if isinstance(one, np.ndarray) and not one.ndim else one for one in given]
    # A prompt without any candidate lacks one.
    lists = [[one] if _is_one(one) else list(one) or [None] for one in given]
    width = max(map(len, lists))
    return {
        f"{name}.{place + 1}": [
            _value(name, one[place]) if place < len(one) else PADDING for one in lists
        ]
        for place in range(width)
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
    found = arguments.listed(value)
    if found is None:
        raise errors.ConfigError(
            f"{what} {arguments.described(value)}",
            "give a text or a token id for each prompt, or a mapping of names to them",
        )
    return found


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


def resolve(
    named: Mapping[str, Sequence[Any]],
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], list[list[int]]],
    spelled: Mapping[int, str],
    vocab_size: int,
    space: spacing.Space = "auto",
) -> Answers:
    """Takes the first token of each answer.

    Args:
        named: From `columns`.
        prompts: Texts of the prompts, for what stands before an answer.
        encode: Gives the token ids of some texts.
        spelled: Texts of the token ids that are given.
        vocab_size: Tokens of the model.
        space: See ``spacing.begins_with_space``.

    Raises:
        ConfigError: A token id that the model does not have.
    """
    shape = (len(prompts), len(named))
    text = np.full(shape, None, object)
    token, n_tokens = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    added, padding = np.zeros(shape, bool), np.zeros(shape, bool)
    for place, (name, column) in enumerate(named.items()):
        wanted: dict[str, list[int]] = {}
        for prompt, value in enumerate(column):
            padding[prompt, place] = value is PADDING
            if isinstance(value, int):
                if not 0 <= value < vocab_size:
                    raise errors.ConfigError(
                        f"answer {name!r} of prompt {prompt} is token {errors.show(value)}",
                        f"the model has the tokens 0 to {vocab_size - 1}",
                    )
                text[prompt, place], token[prompt, place] = spelled.get(value, ""), value
                n_tokens[prompt, place] = 1
            elif isinstance(value, str):
                added[prompt, place] = spacing.begins_with_space(value, prompts[prompt], space)
                text[prompt, place] = " " * bool(added[prompt, place]) + value
                wanted.setdefault(text[prompt, place], []).append(prompt)
        for ids, where in zip(encode(list(wanted)), wanted.values(), strict=True):
            n_tokens[where, place] = len(ids)
            known = ids and ids[0] < vocab_size
            token[where, place] = ids[0] if known else -1
    return Answers(tuple(named), text, token, n_tokens, added, _collisions(token), padding)


def _collisions(token: Int[np.ndarray, "prompt answer"]) -> Bool[np.ndarray, "prompt answer"]:
    found = np.zeros(token.shape, bool)
    for prompt, ids in enumerate(token.tolist()):
        times = collections.Counter(ids)
        found[prompt] = [number >= 0 and times[number] > 1 for number in ids]
    return found
