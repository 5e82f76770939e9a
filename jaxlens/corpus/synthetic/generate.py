"""Corpora that are made instead of read, and what else stands between text and token file."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int

from jaxlens import config, designs
from jaxlens.corpus import frequency_bins
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import nouns, prompts, repeated_tokens, templates
from jaxlens.models.tokenizer import added_ids


@dataclass(frozen=True)
class Generated:
    """A corpus that is made.

    Attributes:
        definition: JSON that decides every document.
        read: Makes the documents, and tells a log what it leaves out.
    """

    definition: Mapping[str, Any]
    read: Callable[[skip_log.SkipLog], Iterator[documents.Document]]


@dataclass(frozen=True)
class Controls:
    """What makes a token file another one than that of the corpus' files in their order.

    Attributes:
        generated: What to make instead of reading files.
        shuffle: Seed by which to shuffle the tokens of each document.
    """

    generated: Generated | None = None
    shuffle: int | None = None

    def fingerprint(self, paths: Sequence[str], options: Mapping[str, Any]) -> str:
        """The sha256 that says which token file it is; see ``documents.fingerprint``."""
        if self.shuffle is not None:
            options = {**options, "shuffle": self.shuffle}
        if self.generated is None:
            return documents.fingerprint(paths, options)
        return _hash({**options, "generated": self.generated.definition})


NONE = Controls()
"""Files in their order."""


def corpus(
    name: str,
    tokenizer: tokenizers.Tokenizer,
    token_bytes: Sequence[bytes],
    *,
    room: int,
    seed: int,
    counts: Int[np.ndarray, " vocab"] | None = None,
) -> Generated:
    """The corpus of a name.

    Args:
        name: One of ``designs.CORPORA``.
        tokenizer: Of the model.
        token_bytes: Bytes of each token, see ``models.tokenizer.strings``.
        room: Tokens that a sequence of the plan has for a document, beside its BOS.
        seed: Of the random blocks.
        counts: Occurrences of each token; the order of the vocabulary stands in for them.

    Raises:
        ConfigError: No token has a frequency.
    """
    if name == designs.CURATED:
        return Generated({"corpus": name, "prompts": _hash(prompts.PROMPTS)}, prompts.read)
    special = added_ids(tokenizer)
    bins = (
        frequency_bins.by_id(token_bytes, special)
        if counts is None
        else frequency_bins.by_count(counts, token_bytes, special)
    )
    definition: dict[str, Any] = {
        "corpus": name,
        "bins": hashlib.sha256(bins.tobytes()).hexdigest(),
        "room": room,
    }
    if name == designs.PLASMA:
        definition["texts"] = _hash({templates.POST: [templates.TEMPLATE, *nouns.NOUNS]})
        return Generated(definition, functools.partial(templates.read, tokenizer, bins, room))
    definition |= {
        "version": repeated_tokens.VERSION,
        "seed": seed,
        "lags": designs.LAGS,
        "sequences": designs.SEQUENCES,
    }
    return Generated(definition, functools.partial(repeated_tokens.read, bins, seed, room))


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(config.canonical(document)).hexdigest()
