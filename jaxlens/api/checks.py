"""What callers of the public functions may give, and what they are told where it does not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens import arguments, errors, types
from jaxlens.lens import decoders

_SAMPLED = 1024
"""Positions that are looked at to tell whether a residual is normalised already."""

# Mean and variance of normalised residuals: in float32, and where they were rounded to 16 bits.
_CLOSE, _ROUNDED = (1e-3, 5e-3), (0.01, 0.03)
_FEW = 4
"""With fewer positions only the close tolerance holds: chance meets the wide one now and then."""

READ_PROMPTS = "jaxlens.read_prompts(model, ...) reads texts and lists of unequal length"


def model(value: Any) -> None:
    """Refuses anything but a model.

    Raises:
        ConfigError: Saying what it is.
    """
    if not hasattr(value, "params") or not hasattr(value, "config"):
        raise errors.ConfigError(
            f"model is {arguments.described(value)}", "give what jaxlens.load_model('gpt2') returns"
        )


def unembed(value: Any) -> None:
    """Refuses anything but an ``Unembed``.

    Raises:
        ConfigError: Saying what it is.
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
        ConfigError: Naming those that there are.
    """
    arguments.one_of(value, "decoder", decoders.KINDS)


def grid(tokens: Any) -> Int[np.ndarray, "batch position"]:
    """Token ids as an array of whole numbers with two axes.

    Raises:
        ConfigError: They are something else, or there are none.
    """
    found = _token_array(tokens)
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        hint = "give integers [batch, position]"
        if found.ndim == 1 and found.dtype.kind in "iu":
            hint = "give integers [batch, position]; of one prompt, [tokens]"
        elif found.dtype.kind == "b":
            hint += "; a mask is the argument after the tokens"
        raise errors.ConfigError(f"tokens are {found.dtype} of shape {found.shape}", hint)
    if not found.size:
        raise errors.ConfigError(f"no tokens: shape {found.shape}", "give at least one")
    return found


def _token_array(tokens: Any) -> np.ndarray:
    if _is_text(tokens):
        raise errors.ConfigError("tokens are a text", READ_PROMPTS)
    if not hasattr(tokens, "dtype") and isinstance(tokens, Iterable):
        tokens = list(tokens)
        if any(map(_is_text, tokens)):
            raise errors.ConfigError("tokens are texts", READ_PROMPTS)
        lengths = {len(one) for one in tokens if hasattr(one, "__len__")}
        if len(lengths) > 1:
            raise errors.ConfigError(
                f"tokens are lists of unequal length, {min(lengths)} to {max(lengths)}",
                f"pad them on the right and give a mask; {READ_PROMPTS}",
            )
    try:
        found = np.asarray(tokens)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.ConfigError(
            f"tokens are {arguments.described(tokens)}, not an array",
            "give integers [batch, position]",
        ) from error
    if found.dtype.kind in "OUS":
        raise errors.ConfigError(
            f"tokens are {arguments.described(tokens)}", "give integers [batch, position]"
        )
    return found


def tokens(values: Any, architecture: types.Architecture) -> Int[np.ndarray, "batch position"]:
    """Tokens as int32, refused where the model could not have seen them.

    Raises:
        ConfigError: They do not fit.
    """
    found = grid(values)
    if found.shape[1] > architecture.n_positions:
        raise errors.ConfigError(
            f"{found.shape[1]} tokens a line, the model has {architecture.n_positions} positions",
            "shorten the lines, or sweep the text with jaxlens run",
        )
    in_vocabulary(found, architecture.vocab_size)
    return found.astype(np.int32)


def configuration(value: Any) -> None:
    """Refuses a model's configuration that is a path, or not its contents; None passes.

    Raises:
        ConfigError: Saying what it is.
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
        ConfigError: Saying what it is.
    """
    if value is not None and not callable(getattr(type(value), "to_str", None)):
        raise errors.ConfigError(
            f"tokenizer is {arguments.described(value)}",
            "give a tokenizers.Tokenizer, model.tokenizer for instance; of a fast tokenizer of "
            "transformers, its backend_tokenizer",
        )


def progress(value: Any) -> None:
    """Refuses anything but what can be told of progress; None passes.

    Raises:
        ConfigError: Saying what it is.
    """
    lacking = [n for n in ("begin", "advance") if not callable(getattr(value, n, None))]
    if value is not None and lacking:
        raise errors.ConfigError(
            f"progress is {arguments.described(value)}",
            "give an object with the methods begin(total, done) and advance(count)",
        )


def in_vocabulary(ids: np.ndarray, vocab_size: int) -> None:
    """Refuses ids that are no tokens of the model.

    Raises:
        ConfigError: Naming their range.
    """
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        raise errors.ConfigError(
            f"token ids from {ids.min()} to {ids.max()}, vocabulary {vocab_size}",
            "use the model's own tokenizer, and mask the padding",
        )


def mask(value: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "batch position"] | None:
    """A mask of the shape of the tokens; None stays.

    Raises:
        ConfigError: It has another shape, or holds other values than 0 and 1.
    """
    if value is None:
        return None
    found: Any = np.empty(0, object)
    with contextlib.suppress(ValueError):
        found = np.asarray(value)
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        raise errors.ConfigError(
            f"mask is {arguments.described(value)}",
            "give True where a token is real and False in the padding",
        )
    if found.shape != shape:
        raise errors.ConfigError(
            f"mask has shape {found.shape}, tokens {shape}", "give one value a token"
        )
    return found.astype(bool)


def follow(value: Any, shape: tuple[int, ...], vocab_size: int) -> np.ndarray:
    """Followed tokens as ``[batch, position, m]``; -1 where there is none.

    Args:
        value: ``[m]`` for all prompts, ``[batch, m]`` for each, or ``[batch, position, m]``.
        shape: Of the tokens.
        vocab_size: Tokens of the model.

    Raises:
        ConfigError: They are no tokens, or it is not clear of what.
    """
    ids: Any = np.empty(0, object)
    with contextlib.suppress(ValueError):  # ragged lists
        ids = np.atleast_1d(np.asarray(value))
    if not np.issubdtype(ids.dtype, np.integer) or not ids.size:
        raise errors.ConfigError(
            f"follow is {arguments.described(value)}",
            f"give token ids [m], [batch, m] or [batch, position, m]; {READ_PROMPTS}",
        )
    if ids.min() < -1 or ids.max() >= vocab_size:
        raise errors.ConfigError(
            f"follow holds token ids from {ids.min()} to {ids.max()}, vocabulary {vocab_size}",
            "use the model's own tokenizer; -1 stands for no token",
        )
    batch, length = shape
    if ids.ndim == 1 and len(ids) == batch and batch > 1:
        raise errors.ConfigError(
            f"follow has {batch} tokens for {batch} prompts: one for each, or all for all?",
            "one for each prompt is [[id], [id], ...], of shape [batch, 1]; "
            "the same for all is [[id, id, ...]], of shape [1, m]",
        )
    spread = ids[:, None] if ids.ndim == 2 else ids
    fits = ids.ndim <= 3 and (ids.ndim < 2 or ids.shape[0] in (1, batch))
    fits = fits and (ids.ndim < 3 or ids.shape[1] in (1, length))
    if not fits:
        raise errors.ConfigError(
            f"follow has shape {ids.shape}, tokens {shape}",
            "give [m], [batch, m] or [batch, position, m]",
        )
    return np.broadcast_to(spread.astype(np.int32), (*shape, ids.shape[-1]))


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


def not_normalised(
    last: Float[Any, "batch position embed"],
    real: Bool[np.ndarray, "batch position"],
    head: types.Unembed,
) -> None:
    """Refuses residuals of the last layer that are the *output* of the final norm.

    They are if ``(x - bias) / gain`` has mean 0 and variance 1 over ``embed`` at nearly every
    position; a residual stream has neither.

    Raises:
        ConfigError: Naming the remedy.
    """
    if any(isinstance(part, jax.core.Tracer) for part in (last, head.scale, head.bias)):
        return
    line, position = (index[:_SAMPLED] for index in np.nonzero(real))
    gain, bias = (np.asarray(part, np.float64) for part in (head.scale, head.bias))
    if not len(line) or np.abs(gain).min() < 1e-6 * np.median(np.abs(gain)):
        return
    rows = (np.asarray(last, np.float64)[line, position] - bias) / gain
    mean, variance = np.abs(rows.mean(-1)), np.abs(rows.var(-1) - 1)
    bounds = [_CLOSE] if len(line) < _FEW else [_CLOSE, _ROUNDED]
    if any(((mean < m) & (variance < v)).mean() >= 0.98 for m, v in bounds):
        raise errors.ConfigError(
            "the residuals of the last layer are normalised already, by the final norm",
            "give the last block's own output; the last of Hugging Face's hidden_states is after "
            "ln_f, so take a forward hook on transformer.h[-1] (docs: coming from other tools)",
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes))
