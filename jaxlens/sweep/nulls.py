"""The controls of a study, as a configuration asks for them: null models and made corpora."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlens import config as configs
from jaxlens import designs, errors
from jaxlens.corpus import token_folder
from jaxlens.corpus.synthetic import generate
from jaxlens.models import gpt2, loading, tokenizer
from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.store import layout

_SEEDS = 2**64


def checkpoint(config: configs.RunConfig) -> weights.Checkpoint:
    """The weights of a run: those of its model, or fresh ones of the same architecture.

    Raises:
        JaxlensError: As for ``weights.load``.
    """
    found = loading.load_checkpoint(config.model.path, config.model.revision)
    if config.null != "random-init":
        return found
    fresh = gpt2.init(found.architecture, config.seed % _SEEDS)
    return dataclasses.replace(found, params=fresh)


def of_corpus(
    config: configs.RunConfig, model: loading.Model, bos_id: int | None
) -> generate.Controls:
    """What stands between the corpus' text and its token file.

    Args:
        config: From ``config.load``.
        model: With its tokenizer.
        bos_id: Token before every document.

    Raises:
        MissingError: The counts are not there.
        ConfigError: The counts are of another vocabulary, or the corpus has no use for them.
    """
    name = designs.kind(config.corpus.paths)
    if config.corpus.counts is not None and name not in designs.BINNED:
        raise errors.ConfigError(
            "corpus.counts is given, but the corpus has no frequency bins",
            f"use it with {' or '.join(designs.BINNED)}",
        )
    made = None
    if name != designs.TEXT:
        spelled = tokenizer.strings(model.tokenizer, model.config.vocab_size)
        length = config.plan.length or model.config.n_positions
        made = generate.corpus(
            name,
            model.tokenizer,
            spelled,
            room=length - (bos_id is not None),
            seed=config.seed,
            counts=_counts(config.corpus.counts, spelled),
        )
    return generate.Controls(made, config.seed if config.null == "shuffled" else None)


def record(config: configs.RunConfig) -> dict[str, Any]:
    """The ``null`` of the spec."""
    if config.null == "none":
        return {"kind": config.null}
    return {"kind": config.null, "seed": config.seed}


def _counts(place: str | None, spelled: list[bytes]) -> Int[np.ndarray, " vocab"] | None:
    """Occurrences of each token in another corpus, of a run or of a folder of tokens."""
    if place is None:
        return None
    folders = (Path(place), Path(place) / layout.TOKENS)
    found = next(filter(None, (token_folder.find(folder, None) for folder in folders)), None)
    if found is None:
        raise errors.MissingError(
            f"no whole token file at {place}, which corpus.counts names",
            "name a run, or the folder that jaxlens tokenize made",
        )
    if not np.array_equal(token_folder.token_strings(found), np.array(spelled, np.bytes_)):
        raise errors.ConfigError(
            f"the counts at {place} are of another vocabulary than the model's",
            "count with the tokenizer of this model: jaxlens tokenize --model ...",
        )
    return found.index.token_counts.sum(axis=0)
