"""Controls of a study: null models and synthetic corpora, as the configuration names them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlens import designs, errors, models
from jaxlens.config import RunConfig
from jaxlens.corpus import plan, token_folder
from jaxlens.corpus.synthetic import generate
from jaxlens.models import loading, tokenizer
from jaxlens.models.checkpoints.checkpoint import Checkpoint
from jaxlens.store import layout

_SEEDS = 2**64


def checkpoint(config: RunConfig) -> Checkpoint:
    """The weights of a run: those of its model, not read yet, or fresh ones of its architecture.

    Raises:
        JaxlensError: As for ``checkpoint.load``.
    """
    loaded = loading.load_checkpoint(config.model.path, config.model.revision, read=False)
    if config.null != "random-init":
        return loaded
    params = models.init(loaded.architecture, config.seed % _SEEDS)
    return dataclasses.replace(loaded, params=params, stored=None)


def of_corpus(config: RunConfig, model: loading.Model) -> generate.Controls:
    """The synthetic corpus or the shuffling that a run asks for.

    Args:
        config: With its ``corpus.bos`` chosen.
        model: With its tokenizer.

    Raises:
        MissingError: The counts do not exist.
        ConfigError: The counts are of another vocabulary, or the corpus does not use them.
    """
    name = designs.kind(config.corpus.paths)
    if config.corpus.counts is not None and name not in designs.BINNED:
        raise errors.ConfigError(
            "corpus.counts is given, but the corpus has no frequency bins",
            f"use it with {' or '.join(designs.BINNED)}",
        )
    corpus = None
    if name != designs.TEXT:
        token_bytes = tokenizer.strings(model.tokenizer, model.config.vocab_size)
        length = config.plan.length or plan.default_length(model.config.n_positions)
        corpus = generate.corpus(
            name,
            model.tokenizer,
            token_bytes,
            room=length - (config.corpus.bos in ("start", "window")),
            seed=config.seed,
            counts=_counts(config.corpus.counts, token_bytes),
        )
    return generate.Controls(corpus, config.seed if config.null == "shuffled" else None)


def record(config: RunConfig) -> dict[str, Any]:
    """The ``null`` of the spec."""
    if config.null == "none":
        return {"kind": config.null}
    return {"kind": config.null, "seed": config.seed}


def _counts(folder: str | None, token_bytes: list[bytes]) -> Int[np.ndarray, " vocab"] | None:
    """Occurrences of each token in another corpus, of a run or of a folder of tokens."""
    if folder is None:
        return None
    candidates = (Path(folder), Path(folder) / layout.TOKENS)
    counted = next(filter(None, (token_folder.find(path, None) for path in candidates)), None)
    if counted is None:
        raise errors.MissingError(
            f"no whole token file at {folder}, which corpus.counts names",
            "name a run, or the folder that jaxlens tokenize made",
        )
    if not np.array_equal(token_folder.token_strings(counted), np.array(token_bytes, np.bytes_)):
        raise errors.ConfigError(
            f"the counts at {folder} are of another vocabulary than the model's",
            "count with the tokenizer of this model: jaxlens tokenize --model ...",
        )
    return counted.index.token_counts.sum(axis=0)
