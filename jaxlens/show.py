"""A prompt through the lens, ready to be looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from jaxlens import api, cache, config, errors, executables, numerics
from jaxlens.corpus import encoding
from jaxlens.models import gpt2
from jaxlens.view import prompt as views
from jaxlens.view import readouts

DECODERS = ("final_norm", "plain")

STRIDE = 32
"""Prompts are padded to a multiple of it: each length is another program, which takes seconds."""


def prompts(
    model: str, texts: Sequence[str], decoders: Sequence[str], follow: Sequence[str], top_k: int
) -> list[views.Prompt]:
    """Prompts of a model that has yet to be loaded; see `read`.

    The programs are kept where those of sweeps are, so that the next prompt finds them.

    Raises:
        ConfigError: See `read`.
        MissingError: The model is not there.
    """
    numerics.require_compilation()
    programs = executables.keep(cache.folder(config.load(environment=os.environ).cache))
    loaded = api.load_model(model)
    found = [
        read(loaded, model, text, decoders=decoders, follow=follow, top_k=top_k) for text in texts
    ]
    executables.seal(programs)
    return found


def read(
    model: api.Model,
    name: str,
    text: str,
    *,
    decoders: Sequence[str] = DECODERS,
    top_k: int = 5,
    follow: Sequence[str] = (),
    precision: str = "float32",
) -> views.Prompt:
    """Reads the lens on a text, with each decoder.

    Args:
        model: With a tokenizer.
        name: Of the model, for titles.
        text: Not empty; at most ``n_positions`` tokens.
        decoders: See ``api.read_lens``.
        top_k: Best tokens of each cell.
        follow: Texts of single tokens whose rank and probability are wanted everywhere.
        precision: Operands of the matrix multiplies.

    Raises:
        ConfigError: The model has no tokenizer, the text no token or too many, or a followed text
            is not one token.
    """
    ids = encode(model, text)
    followed = [one_token(model, word) for word in follow]
    tokens, mask = _padded(ids, model.config.n_positions)
    streams = api.residuals(model, tokens, precision=precision)
    found = [
        api.read_residuals(
            streams,
            gpt2.unembed(model.params, model.config, decoder),
            tokens,
            mask,
            top_k=min(top_k, model.config.vocab_size),
            quantities=views.QUANTITIES,
            follow=followed or None,
            precision=precision,
            tokenizer=model.tokenizer,
        )
        for decoder in decoders
    ]
    return readouts.prompt_of(found, model=name, text=text)


def encode(model: api.Model, text: str) -> np.ndarray:
    """Tokens of a text, int32.

    Raises:
        ConfigError: The model has no tokenizer, or the text no tokens or too many.
        DataError: The tokenizer takes too long.
    """
    if model.tokenizer is None:
        raise errors.ConfigError(
            "the model has no tokenizer", "put tokenizer.json beside its weights"
        )
    # What no UTF-8 can hold, as a surrogate alone, becomes a replacement character.
    known = text.encode("utf-8", "replace").decode("utf-8")
    try:
        ids = np.array(encoding.encode(model.tokenizer, [known])[0].ids, np.int32)
    except encoding.TooSlow:
        raise errors.DataError(
            f"the tokenizer takes over {encoding.SECONDS} s for the text",
            "its regular expression may never end: take another tokenizer",
        ) from None
    if not len(ids):
        raise errors.ConfigError("the text has no tokens", "give a prompt, for instance 'The cat'")
    if len(ids) > model.config.n_positions:
        raise errors.ConfigError(
            f"the text has {len(ids):,} tokens, the model {model.config.n_positions:,} positions",
            "shorten it, or sweep it with jaxlens run",
        )
    return ids


def one_token(model: api.Model, text: str) -> int:
    """The token that a text is.

    Raises:
        ConfigError: It is none or several.
    """
    ids = encode(model, text)
    if len(ids) != 1:
        parts = " + ".join(repr(model.tokenizer.decode([number])) for number in ids.tolist())
        raise errors.ConfigError(
            f"{text!r} is {len(ids)} tokens: {parts}",
            "follow a single token; most words begin with a space, as in ' plasma'",
        )
    return int(ids[0])


def _padded(ids: np.ndarray, n_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The prompt as a batch of one line, and which of its tokens are real."""
    length = min(-(-len(ids) // STRIDE) * STRIDE, n_positions)
    line = np.pad(ids, (0, length - len(ids)))
    return line[None], (np.arange(length) < len(ids))[None]
