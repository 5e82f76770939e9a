"""Answers to prompts as tokens: which token stands for each, and how it was chosen."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlens import arguments, errors
from jaxlens.api.prompts import answer_columns, spacing


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


def resolve(
    named: Mapping[str, Sequence[Any]],
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], list[list[int]]],
    token_texts: Mapping[int, str],
    vocab_size: int,
    space: spacing.Space = "auto",
) -> Answers:
    """Takes the first token of each answer.

    Args:
        named: From `columns`.
        prompts: Texts of the prompts, for what stands before an answer.
        encode: Gives the token ids of some texts.
        token_texts: Texts of the token ids that are given.
        vocab_size: Tokens of the model.
        space: See ``spacing.begins_with_space``.

    Raises:
        ConfigError: A token id that the model does not have.
    """
    shape = (len(prompts), len(named))
    text = np.full(shape, None, object)
    token, n_tokens = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    added, padding = np.zeros(shape, bool), np.zeros(shape, bool)
    for answer, (name, column) in enumerate(named.items()):
        prompts_of: dict[str, list[int]] = {}
        for prompt, value in enumerate(column):
            padding[prompt, answer] = value is answer_columns.PADDING
            if isinstance(value, int):
                if not 0 <= value < vocab_size:
                    raise errors.ConfigError(
                        f"answer {name!r} of prompt {prompt} is token {errors.show(value)}",
                        f"the model has the tokens 0 to {vocab_size - 1}",
                    )
                text[prompt, answer], token[prompt, answer] = token_texts.get(value, ""), value
                n_tokens[prompt, answer] = 1
            elif isinstance(value, str):
                added[prompt, answer] = spacing.begins_with_space(value, prompts[prompt], space)
                text[prompt, answer] = " " * bool(added[prompt, answer]) + value
                prompts_of.setdefault(text[prompt, answer], []).append(prompt)
        for ids, where in zip(encode(list(prompts_of)), prompts_of.values(), strict=True):
            n_tokens[where, answer] = len(ids)
            known = ids and ids[0] < vocab_size
            token[where, answer] = ids[0] if known else -1
    return Answers(tuple(named), text, token, n_tokens, added, _collisions(token), padding)


def _collisions(token: Int[np.ndarray, "prompt answer"]) -> Bool[np.ndarray, "prompt answer"]:
    collides = np.zeros(token.shape, bool)
    for prompt, ids in enumerate(token.tolist()):
        times = collections.Counter(ids)
        collides[prompt] = [number >= 0 and times[number] > 1 for number in ids]
    return collides
