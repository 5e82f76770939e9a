"""Which tokens and layers of two prompts belong together, and a sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from jaxlens import errors
from jaxlens.view.comparison import depths
from jaxlens.view.prompt import prompt

Pairs = tuple[tuple[int, int], ...]

Columns = tuple[Int[np.ndarray, "column 2"], Bool[np.ndarray, " column"], str]
"""Places of tokens in both prompts, -1 where one has none; which are equal; a sentence."""


def same_vocabulary(first: prompt.Prompt, second: prompt.Prompt) -> bool:
    """Whether ids mean the same tokens in both, as far as the prompts show it.

    Raises:
        ConfigError: The vocabularies differ and the tokens have no text to compare.
    """
    one, two = first.token_bytes, second.token_bytes
    alike = first.vocab_size == second.vocab_size and bool(one) == bool(two)
    if alike and all(one[number] == two[number] for number in one.keys() & two.keys()):
        return True
    if not one or not two:
        raise errors.ConfigError(
            f"vocabularies of {first.vocab_size:,} and {second.vocab_size:,} tokens, without the "
            "text of their tokens",
            "give both models their tokenizers, which say what the tokens stand for",
        )
    return False


def by_position(first: prompt.Prompt, second: prompt.Prompt) -> Columns:
    """Tokens of one vocabulary: by position; of other lengths from both ends towards the middle.

    Returns:
        Places in both prompts by column, whether the tokens are equal, and a sentence.
    """
    if len(first) == len(second):
        places = np.arange(len(first))
        equal = first.ids == second.ids
        words = f"{_of(int(equal.sum()), 'token')} aligned by position"
        if others := int((~equal).sum()):
            words += f"; at {_of(others, 'position')} the tokens differ"
        return np.stack([places, places], 1), equal, words
    shared = min(len(first), len(second))
    before = _alike(first.ids, second.ids, shared)
    after = _alike(first.ids[::-1], second.ids[::-1], shared - before)
    between = [len(one) - before - after for one in (first, second)]
    columns = np.full((before + max(between) + after, 2), -1)
    for side, one in enumerate((first, second)):
        columns[: before + between[side], side] = np.arange(before + between[side])
        columns[len(columns) - after :, side] = np.arange(len(one) - after, len(one))
    equal = np.ones(len(columns), bool)
    equal[before : len(columns) - after] = False
    words = (
        f"{len(first)} and {_of(len(second), 'token')}: {before} aligned from the beginning, "
        f"{after} from the end"
    )
    return columns, equal, words


def _alike(one: np.ndarray, two: np.ndarray, most: int) -> int:
    """How many of the first tokens are equal."""
    differing = np.flatnonzero(one[:most] != two[:most])
    return int(differing[0]) if len(differing) else most


def by_text(first: prompt.Prompt, second: prompt.Prompt) -> Columns:
    """Tokens of two vocabularies, aligned where they stand for the same part of the text."""
    spans = [_spans(one.ids, one.token_bytes) for one in (first, second)]
    columns: list[tuple[int, int]] = []
    i = j = 0
    while i < len(spans[0]) or j < len(spans[1]):
        one = spans[0][i] if i < len(spans[0]) else None
        two = spans[1][j] if j < len(spans[1]) else None
        if one == two:
            columns.append((i, j))
            i, j = i + 1, j + 1
        elif two is None or (one is not None and one[:2] <= two[:2]):
            columns.append((i, -1))
            i += 1
        else:
            columns.append((-1, j))
            j += 1
    pairs = np.array(columns).reshape(-1, 2)
    equal = np.asarray((pairs >= 0).all(axis=1))
    words = (
        f"the tokenizers differ: {int(equal.sum()):,} of {len(first):,} and {len(second):,} tokens "
        "stand for the same part of the text and are aligned"
    )
    if first.vocab_size != second.vocab_size:
        words += f"; ranks are among {first.vocab_size:,} and {second.vocab_size:,} tokens"
    return pairs, equal, words


def layers(first: prompt.Prompt, second: prompt.Prompt, relative_depth: bool) -> tuple[Pairs, str]:
    """Places of the layers that belong together, from the input on, and a sentence.

    Raises:
        ConfigError: The models differ in depth, and relative depth was not asked for; or no layer
            was read of both.
    """
    streams = [one.streams or len(one.layers) for one in (first, second)]
    numbers = [[_number(name) for name in one.layers] for one in (first, second)]
    if streams[0] == streams[1]:
        wanted, words = [(n, n) for n in numbers[0]], "layers aligned by name"
    elif not relative_depth:
        raise errors.ConfigError(
            f"the models have {streams[0] - 1} and {streams[1] - 1} blocks",
            "compare layers of equal relative depth: --relative-depth, or relative_depth=True",
        )
    else:
        wanted = depths.matched(*streams)
        words = f"{streams[0] - 1} and {streams[1] - 1} blocks, aligned by relative depth"
    pairs = tuple(
        (numbers[0].index(one), numbers[1].index(two))
        for one, two in wanted
        if one in numbers[0] and two in numbers[1]
    )
    if not pairs:
        raise errors.ConfigError("no layer was read of both", "read the same layers, or all")
    return pairs, words


def _spans(ids: np.ndarray, token_bytes: Mapping[int, bytes]) -> list[tuple[int, int, bytes]]:
    """Beginning and end of each token in the bytes of the text, and the token's own bytes."""
    spans, at = [], 0
    for number in ids.tolist():
        raw = token_bytes.get(number, b"")
        spans.append((at, at + len(raw), raw))
        at += len(raw)
    return spans


def _number(name: str) -> int:
    return 0 if name == "input" else int(name.removeprefix("h.")) + 1


def _of(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
