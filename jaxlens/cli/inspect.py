"""Commands that read prompts: show, prompts; heavy imports inside each."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxlens import errors
from jaxlens.cli import comparison_output, options, progress, prompt_output, terminal
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
        model: Directory or hub id of a GPT-2; the packaged model by default.
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
        against: Compare with another model: directory or hub id.
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
        from jaxlens.cli import show

        sides = show.sides(model, decoder, texts, against, against_decoder)
        first, end = options.part(tokens)
        difference = show.comparison(*sides, follow or (), top_k, relative_depth)
        comparison_output.show_prompts(difference.part(first, end), metric, html, figures, json)
        return
    if relative_depth:
        raise errors.ConfigError("--relative-depth without a comparison", "add --against MODEL")
    first, end = options.part(tokens)
    from jaxlens.cli import show

    # Pages and JSON have both decoders; a grid or a figure shows one.
    decoders = dict.fromkeys((decoder, *(show.DECODERS if html or json else ())))
    prompts = show.prompts(model, texts, tuple(decoders), follow or (), top_k)
    prompts = [shown.part(first, end) for shown in prompts]
    prompt_output.show(prompts, decoder, metric, html, figures, json)


def prompts(
    file: Path,
    /,
    *,
    model: str = "packaged",
    prompt_column: str | None = None,
    answer_column: options.Words = None,
    metadata: options.Words = None,
    cluster: str | None = None,
    positions: Literal["last", "all"] = "last",
    layers: options.Words = None,
    difference: options.Words = None,
    top_k: int = 5,
    leading_space: Literal["auto", "never", "always"] = "auto",
    bos: bool = False,
    decoder: Decoder = "final_norm",
    strict: bool = False,
    out: Path | None = None,
    figure: Path | None = None,
    output: options.Shown = options.Output(),
) -> None:
    """Read a file of prompts and answers: how each layer ranks each answer, and a summary.

    Args:
        file: .csv, .tsv, .jsonl, .json (also .gz, .bz2, .zst) or .parquet, one prompt a row.
        model: Directory or hub id of a GPT-2; the packaged model by default.
        prompt_column: Column of the prompts; prompt by default, or else text.
        answer_column: Columns of answers, of texts or lists of texts; answer by default.
        metadata: Columns to keep in the output; all others by default.
        cluster: Column that says which prompts belong together, for intervals that take only these
            groups as independent; by default each prompt is.
        positions: Read the last token of each prompt, or all.
        layers: Numbers (-1 is the last) or names (h.3) of layers; all by default.
        difference: Two answer columns, the logit of the first minus that of the second; of two
            answers these by default.
        top_k: Best tokens to keep at each layer.
        leading_space: Whether an answer gets a leading space: auto, where a word begins.
        bos: Put the beginning-of-text token before every prompt.
        decoder: How the stream is normalised before it is decoded; plain as in the 2020 post.
        strict: Refuse the file if a row cannot be read; by default such rows are counted.
        out: File to create with a record for each prompt, position and layer: .parquet, .csv,
            .csv.gz or .json; a device or a pipe without these gets CSV.
        figure: File for a figure of the summary: .png, .svg or .pdf.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.cli import prompts
    from jaxlens.export import records
    from jaxlens.view.figures import files
    from jaxlens.view.prompt_table import dataframe
    from jaxlens.view.prompt_table import figure as table_figure

    if out is not None:
        records.require(out)
    if figure is not None:
        files.require(figure)
    columns = prompts.Columns(prompt_column, answer_column, metadata, cluster)
    how: dict[str, Any] = {"positions": positions, "top_k": top_k, "decoder": decoder, "bos": bos}
    how |= {"layers": options.layers(layers), "difference": difference}
    how |= {"strict": strict, "leading_space": leading_space}
    with progress.Bar() as bar:
        table = prompts.read(model, file, columns, progress=bar, **how)
    summary, basis = table.summary(cluster), table.basis(cluster)
    n_prompts = errors.count(len(table.last_rows), "prompt")
    title = f"{file.name}: {n_prompts}; model {model}, decoder {decoder}"
    with prompt_output.beside(out, figure):
        prompt_output.show_table(table, summary, str(file), basis)
        if figure is not None:
            table_figure.draw(summary, title, basis, figure)
            terminal.say(f"wrote {figure}")
        if out is not None:
            metadata_of_file = {"model": model, **dataframe.document(table, summary, basis)}
            data = dataframe.columns(table, raw=records.is_spreadsheet(out))
            count = records.write(out, data, metadata_of_file)
            terminal.say(f"wrote {errors.count(count, 'record')} to {out}")


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
