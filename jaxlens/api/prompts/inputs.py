"""Prompts of ``read_prompts`` as ids, and those that cannot be read."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlens import arguments, errors
from jaxlens.api.prompts import answer_columns, answer_tokens, spacing, table
from jaxlens.models import encoding, loading, tokenizer

_BATCH_TEXTS = 4096
"""Texts that the tokenizer takes at once."""

MISSING, EMPTY, NO_TEXT = "prompt is missing", "prompt is empty", "prompt is not text or ids"
BYTES = "prompt is bytes: decode it to text"
TOO_LONG, OUTSIDE = "prompt is too long for the model", "prompt has ids that the model has not"
NO_POSITION, NO_ANSWER = "prompt has no such position", "answer encodes to nothing"
ANSWER_OUTSIDE = "answer has ids that the model has not"


@dataclass(frozen=True, eq=False)
class Encoded:
    """Prompts as ids; those that cannot be read have none, and a reason."""

    ids: list[Any]
    texts: tuple[str, ...]
    reasons: dict[int, str]
    trailing_space: tuple[int, ...]


def listed(prompts: Any) -> list[Any]:
    """Prompts as a list.

    Raises:
        ConfigError: They are one prompt, or none.
    """
    if isinstance(prompts, bytes):
        raise errors.ConfigError("prompts are bytes", "decode them: [prompt.decode('utf-8')]")
    if isinstance(prompts, str):
        raise errors.ConfigError("prompts are one text", "give a list of texts: [text]")
    answer_columns.require_order("prompts are", prompts)
    try:
        values = list(prompts)
    except TypeError as error:
        raise errors.ConfigError(
            f"prompts are {arguments.described(prompts)}", "give a list of texts or of lists of ids"
        ) from error
    if values and all(isinstance(one, (int, np.integer)) for one in values):
        raise errors.ConfigError("prompts are one list of ids", "give a list of lists: [ids]")
    if not values:
        raise errors.ConfigError("no prompts", "give at least one")
    return values


def encode(model: loading.Model, prompts: Sequence[Any], bos: bool) -> Encoded:
    """Prompts as token ids, with the reasons why some cannot be read.

    Raises:
        ConfigError: There are texts and no tokenizer, or ``bos`` and no such token.
        DataError: The tokenizer fails.
    """
    ids: list[Any] = [np.zeros(0, np.int32)] * len(prompts)
    texts, reasons = [""] * len(prompts), {}
    where = [number for number, one in enumerate(prompts) if isinstance(one, str)]
    encoded = _ids(model, [prompts[number] for number in where])
    for number, one in zip(where, encoded, strict=True):
        texts[number], ids[number] = prompts[number], np.array(one, np.int32)
        if not one:
            reasons[number] = EMPTY
    lines = [number for number, one in enumerate(prompts) if not isinstance(one, str)]
    for number in lines:
        ids[number], why = _line(prompts[number], model.config.vocab_size)
        if why:
            reasons[number] = why
    token_bytes = spell(model, np.concatenate([ids[0][:0], *(ids[number] for number in lines)]))
    for number in lines:
        raw = (token_bytes.get(one, b"") for one in ids[number].tolist())
        texts[number] = b"".join(raw).decode("utf-8", "replace")
    if bos:
        _add_bos(model, ids, reasons)
    for number, line in enumerate(ids):
        if len(line) > model.config.n_positions:
            reasons[number] = TOO_LONG
        elif len(line) and line.max() >= model.config.vocab_size:
            reasons[number] = OUTSIDE
    spaced = (n for n, text in enumerate(texts) if text[-1:] == " " and n not in reasons)
    return Encoded(ids, tuple(texts), reasons, tuple(spaced))


def _add_bos(model: loading.Model, ids: list[Any], reasons: Mapping[int, str]) -> None:
    first = model.config.bos_token_id
    if first is None or not 0 <= first < model.config.vocab_size:
        raise errors.ConfigError(
            "the model names no beginning-of-text token", "leave out bos, or put it into the ids"
        )
    for number, line in enumerate(ids):
        if number not in reasons:
            ids[number] = np.concatenate([np.array([first], np.int32), line])


def _line(one: Any, vocab_size: int) -> tuple[np.ndarray, str]:
    """Ids of a prompt that is not text, or why it has none."""
    nothing = np.zeros(0, np.int32)
    if answer_columns.is_missing(one):
        return nothing, MISSING
    if isinstance(one, bytes):
        return nothing, BYTES
    try:
        ids = np.asarray(one)
    except ValueError:
        return nothing, NO_TEXT
    if ids.ndim == 1 and not ids.size:
        return nothing, EMPTY
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        return nothing, NO_TEXT
    if ids.min() < 0 or ids.max() >= vocab_size:
        return nothing, OUTSIDE
    return ids.astype(np.int32), ""


def _ids(model: loading.Model, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts.

    Raises:
        ConfigError: The model has no tokenizer.
        DataError: The tokenizer fails.
    """
    if not texts:
        return []
    if model.tokenizer is None:
        raise errors.ConfigError(
            "the model has no tokenizer", "put tokenizer.json beside its weights, or give token ids"
        )
    ids: list[list[int]] = []
    for start in range(0, len(texts), _BATCH_TEXTS):
        # What no UTF-8 can hold, as a surrogate alone, becomes a replacement character.
        part = [one.encode("utf-8", "replace").decode() for one in texts[start:][:_BATCH_TEXTS]]
        try:
            encoded = encoding.encode(model.tokenizer, part)
        except encoding.TooSlow as error:
            raise errors.DataError(
                f"the tokenizer takes over {encoding.SECONDS} s for text {start + error.place}, "
                "counting from 0",
                "its regular expression may never end: take another tokenizer",
            ) from None
        except ValueError as error:
            raise errors.DataError(
                f"the tokenizer fails: {error}",
                "take the tokenizer that the model was published with",
            ) from error
        ids += [one.ids for one in encoded]
    return ids


def spell_of(model: loading.Model) -> Any:
    """What gives the bytes of some tokens; None without a tokenizer."""
    if model.tokenizer is None:
        return None
    return functools.partial(tokenizer.token_bytes, model.tokenizer)


def spell(model: loading.Model, ids: Any) -> Mapping[int, bytes]:
    """Bytes of tokens, all at once; empty without a tokenizer."""
    known = spell_of(model)
    different = np.unique(np.asarray(ids, np.int64)).tolist()
    return known(different) if known is not None and different else {}


def take_answers(
    model: loading.Model,
    named: Mapping[str, Sequence[str | int | None]],
    encoded: Encoded,
    space: spacing.Space,
) -> answer_tokens.Answers:
    """The token of each answer; see ``answer_tokens``.

    Raises:
        ConfigError: ``space`` is unknown, a token id is not the model's, or there are texts and no
            tokenizer.
    """
    arguments.one_of(space, "leading_space", ("auto", "never", "always"))
    numbers = [one for values in named.values() for one in values if isinstance(one, int)]
    raw = spell(model, [one for one in numbers if 0 <= one < model.config.vocab_size])
    token_texts = {number: one.decode("utf-8", "replace") for number, one in raw.items()}
    encode_texts = functools.partial(_ids, model)
    size = model.config.vocab_size
    return answer_tokens.resolve(named, encoded.texts, encode_texts, token_texts, size, space)


def problems_of(
    encoded: Encoded,
    taken: answer_tokens.Answers,
    named: Mapping[str, Sequence[str | int | None]],
) -> list[table.Problem]:
    """Prompts and answers that cannot be read, and why."""
    problems = [table.Problem(number, why) for number, why in sorted(encoded.reasons.items())]
    for answer, (name, values) in enumerate(named.items()):
        for prompt, value in enumerate(values):
            if answer_columns.is_given(value) and taken.token[prompt, answer] < 0:
                what = ANSWER_OUTSIDE if taken.n_tokens[prompt, answer] else NO_ANSWER
                problems.append(table.Problem(prompt, f"{what}: {name}"))
    return problems


class UnreadableError(errors.ConfigError):
    """A prompt or an answer cannot be read, and none may be left out."""


def refusal(problems: Sequence[table.Problem]) -> UnreadableError:
    """What is raised where nothing may be left out."""
    first = problems[0]
    more = f", and {len(problems) - 1:,} more" if len(problems) > 1 else ""
    return UnreadableError(
        f"prompt {first.prompt}: {first.what}{more}",
        "mend it, or give strict=False, which leaves it out and lists it in table.problems",
    )
