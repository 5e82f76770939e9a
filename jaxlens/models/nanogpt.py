"""Configurations of nanoGPT and minGPT, translated to the names of transformers' GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlens import errors

# What minGPT calls its sizes; all of them are one network.
_MINGPT = (
    *("gpt-mini", "gpt-micro", "gpt-nano", "gopher-44m", "openai-gpt"),
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", None),
)
_RENAMED = {"block_size": "n_positions"}
# nanoGPT's own configuration is recognised by its keys. Its blocks compute the exact GELU.
_NANOGPT_KEYS = ("block_size", "bias")
_NANOGPT = {"model_type": "gpt2", "activation_function": "gelu"}


def translate(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration under the names of ``config.json``; those of other libraries as they are.

    Raises:
        DataError: It is in the style of nanoGPT, but does not say which GELU.
    """
    if "block_size" not in config or "n_positions" in config:
        return config
    renamed = {_RENAMED.get(key, key): value for key, value in config.items()}
    if "model_type" in config:  # minGPT, which computes GPT-2's own activation
        is_mingpt = config["model_type"] in _MINGPT
        return renamed | {"model_type": "gpt2"} if is_mingpt else renamed
    if "activation_function" not in config and not all(key in config for key in _NANOGPT_KEYS):
        raise errors.DataError(
            "config.json: block_size, but no activation_function",
            "models in the style of nanoGPT differ in it: add "
            '"activation_function": "gelu" (exact) or "gelu_new" (tanh)',
        )
    return {**_NANOGPT, **renamed}
