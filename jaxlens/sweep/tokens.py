"""The token file of a run: read where it exists, made where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.corpus import ingest, token_folder
from jaxlens.files import fetching, mounts, scratch
from jaxlens.models import loading, tokenizer
from jaxlens.store import layout, storage
from jaxlens.sweep import nulls

RUNS = Path("runs")
"""Where runs are written that are given no folder."""


def tokenize(config: RunConfig) -> token_folder.Ingested:
    """Makes the token file of a run, and nothing else.

    Raises:
        JaxlensError: See ``errors``.
    """
    checkpoint = loading.load_checkpoint(config.model.path, config.model.revision, read=False)
    model = loading.without_weights(checkpoint)
    mounts.refuse_bucket(config.out or RUNS)
    with storage.mirrored(config.out, writable=True) as mirror, scratch.folder() as temporary:
        if mirror is not None:
            config = dataclasses.replace(config, out=str(mirror.path))
        ingested = read_or_make(config, model, temporary)
        if ingested.directory == temporary:
            assert config.out is not None
            if mirror is None or (mirror.path / layout.RUN).exists():
                raise errors.ConfigError(
                    f"{config.out} is of another run: its corpus differs", "use another --out"
                )
            token_folder.copy_to(ingested, mirror.path / layout.TOKENS, mirror.disk)
        if mirror is not None:
            ingested = dataclasses.replace(ingested, directory=Path(mirror.name) / layout.TOKENS)
    return ingested


def with_bos(
    config: RunConfig, model: loading.Model, existing_spec: Mapping[str, Any] | None = None
) -> RunConfig:
    """The configuration with ``corpus.bos`` chosen: a run that has begun keeps its own.

    Raises:
        ConfigError: The model has no BOS token, which the configuration wants.
    """
    chosen = config.corpus.bos
    if chosen == "auto":
        recorded = (existing_spec or {}).get("corpus", {}).get("bos")
        by_tokenizer: run_config.Bos = "window" if model.adds_bos else "none"
        chosen = recorded if recorded in ("none", "start", "window") else by_tokenizer
    if chosen != "none" and model.config.bos_token_id is None:
        raise errors.ConfigError("the model has no BOS token", "use corpus.bos: none")
    return dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, bos=chosen))


def window_bos(config: RunConfig, model: loading.Model) -> int | None:
    """Token before every window; None where there is none."""
    return model.config.bos_token_id if config.corpus.bos == "window" else None


def read_or_make(
    config: RunConfig, model: loading.Model, temporary: Path, read_only: bool = False
) -> token_folder.Ingested:
    """The token file of a corpus.

    Args:
        config: From ``config.load``.
        model: With its tokenizer.
        temporary: Folder for a token file that may not replace the run's.
        read_only: Whether to write nothing outside of it.

    Raises:
        MissingError: The model has no tokenizer.
        ConfigError: The model has no BOS token, which the configuration wants.
        JaxlensError: See ``ingest.ingest``.
    """
    if model.tokenizer is None:
        raise errors.MissingError(
            f"{config.model.path} has no tokenizer", "put its tokenizer.json beside the weights"
        )
    config = with_bos(config, model)
    bos_id = model.config.bos_token_id if config.corpus.bos == "start" else None
    vocab_size, digest = model.config.vocab_size, tokenizer.tokenizer_digest(model.tokenizer)
    controls = nulls.of_corpus(config, model)
    fingerprint = ingest.fingerprint(config.corpus, digest, vocab_size, bos_id, controls)
    folder = _folder(config, fingerprint, temporary, read_only)
    return ingest.ingest(
        config.corpus, model.tokenizer, vocab_size, bos_id, folder, fingerprint, controls
    )


def _folder(config: RunConfig, fingerprint: str, temporary: Path, read_only: bool) -> Path:
    """Where the token file is, or is to be made.

    A run that has begun keeps the tokens it has: others are made in the temporary folder, and
    reach it only once the spec, which names their hash, has been found to be the same. So do those
    of a run in an object store.
    """
    if config.out is None:
        # A run without a name gets one from its spec, which needs the tokens first.
        return temporary if read_only else RUNS / ".tokens" / fingerprint[:16]
    own = Path(config.out) / layout.TOKENS
    if token_folder.find(own, fingerprint) is not None:
        return own
    has_begun = (Path(config.out) / layout.RUN).exists()
    is_elsewhere = read_only or fetching.mirror_of(own) is not None
    return temporary if has_begun or is_elsewhere else own
