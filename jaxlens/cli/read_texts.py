"""Reads prompts for ``jaxlens show``: one, several, or two to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxlens import api, errors, models
from jaxlens.lens import numerics
from jaxlens.models import encoding, loading
from jaxlens.sweep import compilation_cache
from jaxlens.view.comparison.comparison import Comparison, compare
from jaxlens.view.prompt import readouts
from jaxlens.view.prompt.prompt import QUANTITIES, Prompt

DECODERS = ("final_norm", "plain")

STRIDE = 32
"""Prompts are padded to a multiple of it: each length compiles another program, for seconds."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        model: Directory, GGUF file or hub id.
        decoder: See ``api.read_lens``.
        text: Prompt.
    """

    model: str
    decoder: str
    text: str


def sides(
    model: str,
    decoder: str,
    texts: Sequence[str],
    against: str | None,
    against_decoder: str | None,
) -> tuple[Side, Side]:
    """What is compared: two texts, or one text by two models or two decoders.

    Raises:
        ConfigError: Both sides are the same, or they differ in more than one way, so that nobody
            could say where a difference comes from.
    """
    other = texts[-1] if len(texts) > 1 else texts[0]
    one = Side(model, decoder, texts[0])
    two = Side(against or model, against_decoder or decoder, other)
    differing = sum(a != b for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    if len(texts) > 2 or differing != 1:
        raise errors.ConfigError(
            f"a comparison of {len(texts)} texts"
            if len(texts) > 2
            else "both sides of the comparison are the same"
            if not differing
            else "the sides of the comparison differ in more than one way",
            "compare two texts (TEXT TEXT --compare), two models (--against MODEL) or two decoders "
            "(--against-decoder plain)",
        )
    return one, two


def prompts(
    model: str, texts: Sequence[str], decoders: Sequence[str], follow: Sequence[str], top_k: int
) -> list[Prompt]:
    """Prompts of a model that has yet to be loaded; see `read`.

    The programs are kept where those of sweeps are, so that the next prompt finds them.

    Raises:
        ConfigError: See `read`.
        MissingError: The model is not there.
    """
    numerics.require_compilation()
    with compilation_cache.of_user():
        loaded = api.load_model(model)
        return [
            read(loaded, model, text, decoders=decoders, follow=follow, top_k=top_k)
            for text in texts
        ]


def comparison(
    first: Side, second: Side, follow: Sequence[str], top_k: int, relative_depth: bool = False
) -> Comparison:
    """Two prompts, two models or two decoders, aligned; see `compare`.

    Args:
        first: One side.
        second: The other.
        follow: As for `read`, by both sides.
        top_k: As for `read`.
        relative_depth: Whether layers of models of different depth are aligned by relative depth.

    Raises:
        ConfigError: See `read` and `compare`.
        MissingError: A model is not there.
    """
    names = dict.fromkeys((first.model, second.model))
    with compilation_cache.of_user():
        loaded = {name: api.load_model(name) for name in names}
        shown = [
            read(
                loaded[side.model],
                side.model,
                side.text,
                decoders=(side.decoder,),
                follow=follow,
                top_k=top_k,
            )
            for side in (first, second)
        ]
    return compare(shown[0], shown[1], relative_depth=relative_depth)


def read(
    model: loading.Model,
    name: str,
    text: str,
    *,
    decoders: Sequence[str] = DECODERS,
    top_k: int = 5,
    follow: Sequence[str] = (),
    precision: str = "float32",
) -> Prompt:
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
    ids = _with_bos(model, encode(model, text))
    followed = [one_token(model, word) for word in follow]
    tokens, mask = _padded(ids, model.config.n_positions)
    streams = api.residuals(model, tokens, precision=precision)
    shown = [
        api.read_residuals(
            streams,
            models.unembed(model.params, model.config, decoder),
            tokens,
            mask,
            top_k=min(top_k, model.config.vocab_size),
            quantities=QUANTITIES,
            follow=followed or None,
            precision=precision,
            tokenizer=model.tokenizer,
        )
        for decoder in decoders
    ]
    return readouts.prompt_of(shown, model=name, text=text)


def encode(model: loading.Model, text: str) -> np.ndarray:
    """Tokens of a text, int32.

    Raises:
        ConfigError: The model has no tokenizer, or the text no tokens.
        DataError: The tokenizer takes too long.
    """
    if model.tokenizer is None:
        raise errors.ConfigError(
            "the model has no tokenizer", "put tokenizer.json beside its weights"
        )
    # A lone surrogate, which UTF-8 cannot hold, becomes a replacement character.
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    try:
        ids = np.array(encoding.encode(model.tokenizer, [encodable])[0].ids, np.int32)
    except encoding.TooSlow:
        raise errors.DataError(
            f"the tokenizer takes over {encoding.SECONDS} s for the text",
            "its regular expression may never end: take another tokenizer",
        ) from None
    except ValueError as error:
        raise errors.DataError(
            f"the tokenizer fails: {error}", "take the tokenizer that the model was published with"
        ) from error
    if not len(ids):
        raise errors.ConfigError("the text has no tokens", "give a prompt, for instance 'The cat'")
    return ids


def _with_bos(model: loading.Model, ids: np.ndarray) -> np.ndarray:
    """Tokens of a text after the beginning-of-text token, if the model's tokenizer puts it there.

    Raises:
        ConfigError: There are more than the model has positions.
    """
    first = model.config.bos_token_id
    if model.adds_bos and first is not None:
        ids = np.append(np.int32(first), ids).astype(np.int32)
    if len(ids) > model.config.n_positions:
        raise errors.ConfigError(
            f"the text has {len(ids):,} tokens, the model {model.config.n_positions:,} positions",
            "shorten it, or sweep it with jaxlens run",
        )
    return ids


def one_token(model: loading.Model, text: str) -> int:
    """The token that a text is.

    Raises:
        ConfigError: It is not exactly one.
    """
    ids = encode(model, text)
    if len(ids) != 1:
        parts = " + ".join(repr(model.tokenizer.decode([number])) for number in ids.tolist())
        more = "" if text.startswith(" ") else "; most words begin with a space"
        raise errors.ConfigError(
            f"{text!r} is {len(ids)} tokens: {parts}",
            f"follow a single token, such as one of these{more}",
        )
    return int(ids[0])


def _padded(ids: np.ndarray, n_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The prompt as a batch of one line, and which of its tokens are real."""
    length = min(-(-len(ids) // STRIDE) * STRIDE, n_positions)
    line = np.pad(ids, (0, length - len(ids)))
    return line[None], (np.arange(length) < len(ids))[None]
