"""Commands that look at what was computed: prompts, studies, exports; heavy imports inside."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from jaxlens import errors
from jaxlens.cli import comparison_output, options, prompt_output
from jaxlens.cli import output as terminal
from jaxlens.files import outputs

logger = logging.getLogger("jaxlens")


def show(
    *text: options.Texts,
    model: str = "packaged",
    decoder: Literal["final_norm", "plain", "final_norm_nobias"] = "final_norm",
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
    against_decoder: Literal["final_norm", "plain", "final_norm_nobias"] | None = None,
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
    from jaxlens.view.figures import files as pictures

    figures = [path for path in (png, svg) if path is not None]
    for path in figures:
        pictures.require(path)
    texts = _texts(text, follow or ())
    if compare or against or against_decoder:
        from jaxlens.cli import show as shows

        sides = shows.sides(model, decoder, texts, against, against_decoder)
        first, end = options.part(tokens)
        found = shows.comparison(*sides, follow or (), top_k, relative_depth)
        comparison_output.show_prompts(found.part(first, end), metric, html, figures, json)
        return
    if relative_depth:
        raise errors.ConfigError("--relative-depth without a comparison", "add --against MODEL")
    first, end = options.part(tokens)
    from jaxlens.cli import show as shows

    # Pages and JSON have both decoders; a grid or a figure shows one.
    decoders = dict.fromkeys((decoder, *(shows.DECODERS if html or json else ())))
    prompts = shows.prompts(model, texts, tuple(decoders), follow or (), top_k)
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
    decoder: Literal["final_norm", "plain", "final_norm_nobias"] = "final_norm",
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
    from jaxlens.cli import prompts as promptsheet
    from jaxlens.export import records
    from jaxlens.view.figures import files as pictures
    from jaxlens.view.prompt_table import dataframe
    from jaxlens.view.prompt_table import figure as promptfigure

    if out is not None:
        records.require(out)
    if figure is not None:
        pictures.require(figure)
    columns = promptsheet.Columns(prompt_column, answer_column, metadata, cluster)
    how: dict[str, Any] = {"positions": positions, "top_k": top_k, "decoder": decoder, "bos": bos}
    how |= {"layers": options.layers(layers), "difference": difference}
    how |= {"strict": strict, "leading_space": leading_space}
    with terminal.Bar() as bar:
        table = promptsheet.read(model, file, columns, progress=bar, **how)
    summary, basis = table.summary(cluster), table.basis(cluster)
    read = errors.count(len(table.last_rows), "prompt")
    about = f"{file.name}: {read}; model {model}, decoder {decoder}"
    with prompt_output.beside(out, figure):
        prompt_output.show_table(table, summary, str(file), basis)
        if figure is not None:
            promptfigure.draw(summary, about, basis, figure)
            terminal.say(f"wrote {figure}")
        if out is not None:
            said = {"model": model, **dataframe.document(table, summary, basis)}
            found = dataframe.columns(table, raw=records.is_spreadsheet(out))
            count = records.write(out, found, said)
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


def study(
    run_dir: Path,
    /,
    *,
    null: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    by: str | None = None,
    out: Path | None = None,
    output: options.Shown = options.Output(),
) -> None:
    """Answer the questions of the study: a table of estimates with intervals, and verdicts.

    Args:
        run_dir: Run with --rows full (the default) or --tallies study.
        null: Null runs of the same text: jaxlens run --null random-init --seed S, of several
            seeds, and --null shuffled. Takes all words after it.
        by: Field of the documents, kept with corpus.keep, within whose values the primaries are
            estimated too.
        out: Folder for results.parquet, .csv and .json; study in the run directory by default.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "studies")
    from jaxlens.study import study as answers

    found = answers.study(run_dir, null, by)
    terminal.show_study(found, answers.write(found, out))


def compare(
    run_dir: Path,
    other: Path,
    /,
    *,
    out: Path | None = None,
    figure: Path | None = None,
    json: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Compare two runs over the same tokens: differences by layer, with intervals.

    The runs may differ in weights, decoder, precision or depth. Tokens are paired, and intervals
    are clustered by document; where only totals are stored, means are compared without intervals.

    Args:
        run_dir: Run; differences are this one minus the other.
        other: The other run.
        out: Folder for comparison.parquet, .csv and .json, and the figure comparison.svg.
        figure: File for the figure: .png, .svg or .pdf.
        json: Print all numbers as JSON instead.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "comparisons of runs")
    from jaxlens.study.comparison import compare as compares
    from jaxlens.view.figures import files as pictures

    if figure is not None:
        pictures.require(figure)
    if out is not None:
        pictures.require_library()
        outputs.require_own([out / compares.PICTURE])
    found = compares.compare(run_dir, other)
    written = [] if out is None else compares.write(found, out)
    for path in (figure, None if out is None else out / compares.PICTURE):
        if path is not None:
            from jaxlens.study.report import comparing
            from jaxlens.view.figures import svg as drawing

            drawing.save(comparing.figure(found), path, own=path is not figure)
            written.append(path)
    if json:
        terminal.print_json(compares.document(found))
    else:
        comparison_output.show_runs(found, written)


def report(
    run_dir: Path,
    /,
    *,
    null: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    variant: Annotated[tuple[Path, ...], Parameter(consume_multiple=1)] = (),
    out: Path | None = None,
    figures: Path | None = None,
    output: options.Shown = options.Output(),
) -> None:
    """Write one page with every figure of a run's study: intervals, nulls, verdicts, provenance.

    Args:
        run_dir: Run with --rows full (the default) or --tallies study; of any other run the page
            has the curves of its totals.
        null: Null runs of the same text, as for jaxlens study.
        variant: Runs that differ in lens.decoder alone, to be compared.
        out: File to write; report.html in the run directory by default.
        figures: Folder to which the figures are written too, as SVG.
        output: What is printed.
    """
    options.begin(output)
    errors.require_package("scipy", "study", "reports")
    from jaxlens.study.report import page

    for path in page.write(run_dir, null, variant, out=out, figures=figures):
        terminal.say(f"wrote {path}")


def export(
    run_dir: Path,
    /,
    *,
    to: Literal["parquet", "csv", "hdf5"],
    out: Path | None = None,
    layout: Literal["wide", "long"] | None = None,
    quantities: options.Words = None,
    layers: options.Words = None,
    start: int | None = None,
    stop: int | None = None,
    tallies: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Write rows or totals of a run for other tools: one table, or one HDF5 file.

    Args:
        run_dir: Run directory.
        to: Format; parquet and csv need the package pyarrow.
        out: File to create (.csv.gz compresses), for tallies a folder; beside the run by default.
        layout: wide: a record a token, a column a layer; long: a record for each token and layer.
        quantities: Quantities to export; all by default.
        layers: Numbers (-1 is the last) or names (h.3) of layers; all by default.
        start: First row.
        stop: End of the rows, exclusive.
        tallies: Export the totals instead, a table each.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.export import order

    chosen = {"layout": layout, "quantities": quantities, "layers": layers}
    rows = {"start": start, "stop": stop, "tallies": tallies}
    done = order.export(run_dir, order.Order(to=to, out=out, **chosen, **rows))
    terminal.show_exports(done)
