"""Controlled twins: one sentence about a noun, for nouns of all frequencies.

The sentence is that of the 2020 post, "Sometimes, when people say plasma, ...", so worded that it
makes sense of any noun; its original comes first. At the second "say" a model that copies
predicts the noun, which is one token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
from jaxtyping import Int8

from jaxlens import designs, errors
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import nouns
from jaxlens.models import encoding

TEMPLATE = (
    "Sometimes, when people say {noun}, they mean one thing. "
    "Other times, when people say {noun}, they mean"
)
POST = (
    "Sometimes, when people say plasma, they mean a state of matter. "
    "Other times, when people say plasma"
)
"""The prompt of the post "interpreting GPT: the logit lens", 2020."""


def read(
    tokenizer: tokenizers.Tokenizer,
    bins: Int8[np.ndarray, " vocab"],
    room: int,
    skips: skip_log.SkipLog,
) -> Iterator[documents.Document]:
    """Makes the sentences; one noun of each bin before the next of any.

    Args:
        tokenizer: Of the model.
        bins: Frequency bin of each token, -1 where it has none.
        room: Tokens that a sequence of the plan has for them.
        skips: Counts the sentences that are made, and the nouns that are left out.

    Raises:
        DataError: The tokenizer fails.
    """
    by_bin: list[list[documents.Document]] = [[] for _ in range(designs.N_BINS)]
    sentences = [TEMPLATE.format(noun=noun) for noun in nouns.NOUNS]
    noun_ids = _encode(tokenizer, [f" {noun}" for noun in nouns.NOUNS])
    sentence_ids = _encode(tokenizer, sentences)
    for line, (noun, text, token, ids) in enumerate(
        zip(nouns.NOUNS, sentences, noun_ids, sentence_ids, strict=True), 1
    ):
        location = skip_log.Location(0, line, designs.PLASMA)
        if reason := _fault(token, ids, bins, room):
            skips.add(location, reason)
            continue
        number = int(bins[token[0]])
        name = designs.plasma_id(number, noun)
        by_bin[number].append(documents.Document(name, text, location))
    yield documents.Document(designs.POST, POST, skip_log.Location(0, 0, designs.PLASMA))
    skips.documents += 1
    for one_of_each in itertools.zip_longest(*by_bin):
        for document in filter(None, one_of_each):
            skips.documents += 1
            yield document


def _fault(token: list[int], ids: list[int], bins: Int8[np.ndarray, " vocab"], room: int) -> str:
    """Why a noun cannot be used; empty where it can."""
    if len(token) != 1 or ids.count(token[0]) != 2:
        return skip_log.NOT_ONE_TOKEN
    if token[0] >= len(bins) or bins[token[0]] < 0:
        return skip_log.NO_FREQUENCY
    return skip_log.LONGER_THAN_SEQUENCE if len(ids) > room else ""


def _encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    try:
        encoded = encoding.encode(tokenizer, texts)
    except (ValueError, encoding.TooSlow) as error:
        raise errors.DataError(
            f"the tokenizer fails on {designs.PLASMA}: {error}",
            "take the tokenizer that the model was published with",
        ) from error
    return [one.ids for one in encoded]
