"""Checks of the objects, names and layers that callers of the public functions give."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlens import arguments, errors, types
from jaxlens.lens import decoders, options, pallas, readout


def model(value: Any) -> None:
    """Refuses anything but a model.

    Raises:
        ConfigError: It is something else.
    """
    if not hasattr(value, "params") or not hasattr(value, "config"):
        raise errors.ConfigError(
            f"model is {arguments.described(value)}", "give what jaxlens.load_model('gpt2') returns"
        )


def unembed(value: Any) -> None:
    """Refuses anything but an ``Unembed``.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, types.Unembed):
        raise errors.ConfigError(
            f"unembed is {arguments.described(value)}",
            "give jaxlens.models.unembed(model.params, model.config), or a types.Unembed",
        )
    decoder(value.kind)


def decoder(value: Any) -> None:
    """Refuses anything but the name of a decoder.

    Raises:
        ConfigError: There is no such decoder.
    """
    arguments.one_of(value, "decoder", decoders.DECODERS)


def configuration(value: Any) -> None:
    """Refuses a model's configuration that is a path, or not its contents; None passes.

    Raises:
        ConfigError: It is something else.
    """
    if value is None or isinstance(value, Mapping) or callable(getattr(value, "to_dict", None)):
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return
    raise errors.ConfigError(
        f"config is {errors.show(value)}, not the configuration itself",
        "give the decoded file, json.load(open('DIR/config.json')), or transformers' GPT2Config",
    )


def speller(value: Any) -> None:
    """Refuses anything but a tokenizer; None passes.

    Raises:
        ConfigError: It is something else.
    """
    if value is not None and not callable(getattr(type(value), "to_str", None)):
        raise errors.ConfigError(
            f"tokenizer is {arguments.described(value)}",
            "give a tokenizers.Tokenizer, model.tokenizer for instance; of a fast tokenizer of "
            "transformers, its backend_tokenizer",
        )


def progress(value: Any) -> None:
    """Refuses anything that cannot receive progress updates; None passes.

    Raises:
        ConfigError: It is something else.
    """
    lacking = [n for n in ("begin", "advance") if not callable(getattr(value, n, None))]
    if value is not None and lacking:
        raise errors.ConfigError(
            f"progress is {arguments.described(value)}",
            "give an object with the methods begin(total, done) and advance(count)",
        )


def layers(value: Any, n_layers: int) -> tuple[int, ...] | None:
    """Numbers of residual streams; None, for all of them, stays.

    Args:
        value: One or more numbers (negative from the end) and names (``input``, ``h.0``, ...).
        n_layers: Residual streams of the model.

    Raises:
        ConfigError: No such layer.
    """
    if value is None:
        return None
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    several = [value] if isinstance(value, (str, int, np.integer)) else value
    if isinstance(several, slice):
        several = range(n_layers)[several]
    if not isinstance(several, (Sequence, np.ndarray, range)):
        raise errors.ConfigError(
            f"layers are {arguments.described(value)}",
            "give a list of numbers or names, such as [0, 'h.3', -1]",
        )
    return tuple(layer(one, n_layers) for one in several)


def layer(value: Any, n_layers: int) -> int:
    """The number of a residual stream, from 0.

    Raises:
        ConfigError: No such layer.
    """
    last = f"h.{n_layers - 2}"
    if isinstance(value, str):
        names = ["input", *(f"h.{i}" for i in range(n_layers - 1))]
        if value in names:
            return names.index(value)
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise errors.ConfigError(
            f"no layer {errors.show(value)}",
            f"{hint}layers are input, h.0 to {last}, or 0 to {n_layers - 1}",
        )
    if not arguments.is_whole(value) or not -n_layers <= value < n_layers:
        raise errors.ConfigError(
            f"layer {errors.show(value)} of a model with {n_layers} residual streams",
            f"layers go from 0 (input) to {n_layers - 1} ({last}, the last block's output), "
            f"or from -{n_layers} to -1",
        )
    return int(value) % n_layers


def depth(n_streams: int, known: int | None) -> None:
    """Refuses a stack of residuals that lacks or repeats a layer, where the depth is known.

    Raises:
        ConfigError: Saying how many there must be.
    """
    if known is not None and n_streams != known + 1:
        raise errors.ConfigError(
            f"residuals of {n_streams} layers for a model of {known} blocks",
            f"give {known + 1}: the stream before the first block and after every block, "
            "without the output of the final norm",
        )


def implementation(
    name: str,
    request: options.Options,
    layers: Sequence[int],
    shape: tuple[int, ...],
    references: types.References,
    unembed: types.Unembed,
) -> None:
    """Refuses what the kernel of the default backend does not read, where one is asked for.

    Args:
        name: Of the implementation.
        request: What to read.
        layers: Numbers of the streams to read.
        shape: Of all streams.
        references: Reference tokens.
        unembed: What makes the logits.

    Raises:
        ConfigError: Naming what it does not read.
    """
    if name != "pallas":
        return
    interior = [layer for layer in layers if 0 < layer < shape[0] - 1]
    followed = 0 if references.follow is None else references.follow.shape[-1]
    n_references = len(readout.reference_tokens(references)) + followed + 1  # and the final one
    pallas.require(request, len(interior), shape[-1], n_references, softcap=unembed.softcap)
