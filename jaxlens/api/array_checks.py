"""Checks of the arrays that callers of the public functions give, and their conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens import arguments, errors, types

READ_PROMPTS = "jaxlens.read_prompts(model, ...) reads texts and lists of unequal length"

_SAMPLED = 1024
"""Positions examined to decide whether a residual is normalised already."""

# Mean and variance of normalised residuals: in float32, and where they were rounded to 16 bits.
_CLOSE, _ROUNDED = (1e-3, 5e-3), (0.01, 0.03)
_FEW = 4
"""With fewer positions only the close tolerance holds: chance meets the wide one now and then."""


def grid(tokens: Any) -> Int[np.ndarray, "batch position"]:
    """Token ids as an array of whole numbers with two axes.

    Raises:
        ConfigError: They are something else, or there are none.
    """
    ids = _token_array(tokens)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        hint = "give integers [batch, position]"
        if ids.ndim == 1 and ids.dtype.kind in "iu":
            hint = "give integers [batch, position]; of one prompt, [tokens]"
        elif ids.dtype.kind == "b":
            hint += "; a mask is the argument after the tokens"
        raise errors.ConfigError(f"tokens are {ids.dtype} of shape {ids.shape}", hint)
    if not ids.size:
        raise errors.ConfigError(f"no tokens: shape {ids.shape}", "give at least one")
    return ids


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
        array = np.asarray(tokens)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.ConfigError(
            f"tokens are {arguments.described(tokens)}, not an array",
            "give integers [batch, position]",
        ) from error
    if array.dtype.kind in "OUS":
        raise errors.ConfigError(
            f"tokens are {arguments.described(tokens)}", "give integers [batch, position]"
        )
    return array


def tokens(values: Any, architecture: types.Architecture) -> Int[np.ndarray, "batch position"]:
    """Tokens as int32, refused where the model could not have seen them.

    Raises:
        ConfigError: They do not fit.
    """
    ids = grid(values)
    if ids.shape[1] > architecture.n_positions:
        raise errors.ConfigError(
            f"{ids.shape[1]} tokens a line, the model has {architecture.n_positions} positions",
            "shorten the lines, or sweep the text with jaxlens run",
        )
    in_vocabulary(ids, architecture.vocab_size)
    return ids.astype(np.int32)


def in_vocabulary(ids: np.ndarray, vocab_size: int) -> None:
    """Refuses ids that are not tokens of the model.

    Raises:
        ConfigError: There are others.
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
    array: Any = np.empty(0, object)
    with contextlib.suppress(ValueError):
        array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise errors.ConfigError(
            f"mask is {arguments.described(value)}",
            "give True where a token is real and False in the padding",
        )
    if array.shape != shape:
        raise errors.ConfigError(
            f"mask has shape {array.shape}, tokens {shape}", "give one value a token"
        )
    return array.astype(bool)


def follow(value: Any, shape: tuple[int, ...], vocab_size: int) -> np.ndarray:
    """Followed tokens as ``[batch, position, m]``; -1 where there is none.

    Args:
        value: ``[m]`` for all prompts, ``[batch, m]`` for each, or ``[batch, position, m]``.
        shape: Of the tokens.
        vocab_size: Tokens of the model.

    Raises:
        ConfigError: They are not tokens, or it is not clear of which prompts.
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


def not_normalised(
    last: Float[Any, "batch position embed"],
    real: Bool[np.ndarray, "batch position"],
    head: types.Unembed,
) -> None:
    """Refuses residuals of the last layer that are the *output* of the final norm.

    They are if ``(x - bias) / gain`` has mean 0 and variance 1 over ``embed`` (after an RMS norm a
    mean square of 1) at nearly every position; a residual stream has neither.

    Raises:
        ConfigError: They are.
    """
    if any(isinstance(part, jax.core.Tracer) for part in (last, head.scale, head.bias)):
        return
    line, position = (index[:_SAMPLED] for index in np.nonzero(real))
    gain = np.asarray(head.scale, np.float64)
    bias = 0.0 if head.bias is None else np.asarray(head.bias, np.float64)
    if not len(line) or np.abs(gain).min() < 1e-6 * np.median(np.abs(gain)):
        return
    rows = (np.asarray(last, np.float64)[line, position] - bias) / gain
    mean = np.abs(rows.mean(-1)) * (head.norm == "layer")
    variance = np.abs(np.square(rows).mean(-1) - np.square(mean) - 1)
    bounds = [_CLOSE] if len(line) < _FEW else [_CLOSE, _ROUNDED]
    if any(((mean < m) & (variance < v)).mean() >= 0.98 for m, v in bounds):
        raise errors.ConfigError(
            "the residuals of the last layer are normalised already, by the final norm",
            "give the last block's own output; the last of Hugging Face's hidden_states is after "
            "ln_f, so take a forward hook on transformer.h[-1] (docs: coming from other tools)",
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes))
