"""The command ``jaxlens show``; heavy imports inside."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxlens import errors
from jaxlens.cli import comparison_output, options, prompt_output
from jaxlens.config import Decoder

logger = logging.getLogger("jaxlens")


def show(
    *text: options.Texts,
    model: str = "packaged",
    decoder: Decoder = "final_norm",
    metric: str | None = None,
    follow: options.Words = None,
    tokens: str | None = None,
    top_k: int = 5,
    html: Path | None = None,
    png: Path | None = None,
    svg: Path | None = None,
    json: bool = False,
    compare: bool = False,
    against: str | None = None,
    against_decoder: Decoder | None = None,
    relative_depth: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Look at a prompt: what the model would predict at each layer, in the terminal or in files.

    Args:
        text: Prompts, each in quotes; - reads one from standard input.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M); the packaged
            model by default.
        decoder: How the stream is normalised before it is decoded; plain as in the 2020 post.
        metric: What colours say: p_top (default), rank_final, kl_final, rank_next, rank_input,
            kl_input, kl_to_final, entropy; of a followed token rank_follow, p_follow. Pages open
            with it; pictures show five of them, and followed ranks, unless one is named.
        follow: Tokens whose rank and probability are wanted at every layer, as " plasma".
        tokens: FIRST:END, the tokens to show, counted from 0; all were read.
        top_k: Best tokens of each cell in pages and JSON.
        html: File for an interactive page, with the decoders final_norm and plain.
        png: File for a figure.
        svg: File for a figure.
        json: Print all numbers as JSON instead.
        compare: Compare two texts: the difference, first minus second, and both side by side.
        against: Compare with another model: directory, GGUF file or hub id.
        against_decoder: Compare with another decoder.
        relative_depth: Compare layers of equal relative depth where the models differ in depth.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.view.figures import files

    figures = [path for path in (png, svg) if path is not None]
    for path in figures:
        files.require(path)
    texts = _texts(text, follow or ())
    if compare or against or against_decoder:
        from jaxlens.cli import read_texts

        sides = read_texts.sides(model, decoder, texts, against, against_decoder)
        first, end = options.part(tokens)
        difference = read_texts.comparison(*sides, follow or (), top_k, relative_depth)
        comparison_output.show_prompts(difference.part(first, end), metric, html, figures, json)
        return
    if relative_depth:
        raise errors.ConfigError("--relative-depth without a comparison", "add --against MODEL")
    first, end = options.part(tokens)
    from jaxlens.cli import read_texts

    # Pages and JSON have both decoders; a grid or a figure shows one.
    decoders = dict.fromkeys((decoder, *(read_texts.DECODERS if html or json else ())))
    prompts = read_texts.prompts(model, texts, tuple(decoders), follow or (), top_k)
    prompts = [shown.part(first, end) for shown in prompts]
    prompt_output.show(prompts, decoder, metric, html, figures, json)


def _texts(words: Sequence[str], follow: Sequence[str]) -> list[str]:
    """The prompts of ``show``.

    Raises:
        ConfigError: There are none.
    """
    if not words and len(follow) > 1:
        instead = ["show", follow[-1], "--follow", *follow[:-1]]
        raise options.swallowed("no text", "--follow", instead)
    if not words:
        raise errors.ConfigError("no text", "jaxlens show 'Other times, when people say plasma'")
    if len(words) > 1 and not any(" " in word for word in words):
        quoted = shlex.quote(" ".join(words))
        logger.warning(
            "%d prompts of one word each; to read them as one: jaxlens show %s", len(words), quoted
        )
    named = (options.STDIN, "-")
    return [sys.stdin.read().rstrip("\n") if word in named else word for word in words]
