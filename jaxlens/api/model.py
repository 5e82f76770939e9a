"""Loading a model: weights, tokenizer and the identity gate."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlens import arguments, errors
from jaxlens.api import checks
from jaxlens.models import loading
from jaxlens.models.checkpoints import state_dict
from jaxlens.models.checkpoints.checkpoint import from_state_dict
from jaxlens.models.loading import Model
from jaxlens.models.tokenizer import as_tokenizer


def load_model(
    source: str | Path | Mapping[Any, Any],
    dtype: str = "float32",
    *,
    config: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
) -> Model:
    """Loads a model and checks that the lens at its last layer is the model.

    Args:
        source: Local directory or weights file, GGUF file, hub id (``org/name``, or
            ``org/name:Q4_K_M`` for one file of a GGUF repository), ``packaged``, ``smollm2`` or
            ``gemma3-270m`` where pip has installed them, a state dict or Flax parameters (with
            ``config``), or a PyTorch model that has ``state_dict`` and ``config``.
        dtype: Type of the weights and of the forward pass's multiplies, ``float32`` or
            ``bfloat16``; the residual stream is float32 always.
        config: Decoded ``config.json`` or transformers' ``GPT2Config``: of a state dict, or
            instead of the file.
        revision: Branch, tag or commit of a hub id.
        tokenizer: Directory of a tokenizer, a ``tokenizers.Tokenizer``, or a fast tokenizer of
            transformers; by default the one beside the weights.

    Raises:
        MissingError: The model is not there.
        DataError: It is damaged, or of an architecture that is not supported.
        NumericalError: The identity gate failed.
    """
    if callable(getattr(source, "state_dict", None)):  # a PyTorch model
        source, config = state_dict.of_module(source, config)
    if not isinstance(source, (str, os.PathLike, Mapping)):
        raise errors.ConfigError(
            f"source is {arguments.described(source)}",
            "give a directory, a hub id such as 'gpt2', 'packaged', or a state dict",
        )
    checks.configuration(config)
    if isinstance(source, Mapping):
        checkpoint = from_state_dict(source, config)
    else:
        checkpoint = loading.load_checkpoint(source, revision, config, read=False)
    model = loading.from_checkpoint(checkpoint, dtype, with_hash=False)
    if tokenizer is not None:
        model = dataclasses.replace(model, tokenizer=as_tokenizer(tokenizer))
    loading.check_identity(model)
    return model
