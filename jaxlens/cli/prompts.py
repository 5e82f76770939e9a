"""The command ``jaxlens prompts``; heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jaxlens import errors
from jaxlens.cli import options, progress, prompt_output, terminal
from jaxlens.config import Decoder


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
    bos: bool | None = None,
    decoder: Decoder = "final_norm",
    strict: bool = False,
    out: Path | None = None,
    figure: Path | None = None,
    output: options.Shown = options.Output(),
) -> None:
    """Read a file of prompts and answers: how each layer ranks each answer, and a summary.

    Args:
        file: .csv, .tsv, .jsonl, .json (also .gz, .bz2, .zst) or .parquet, one prompt a row.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M); the packaged
            model by default.
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
        bos: Put the beginning-of-text token before every prompt, or not; by default where the
            model's tokenizer does so.
        decoder: How the stream is normalised before it is decoded; plain as in the 2020 post.
        strict: Refuse the file if a row cannot be read; by default such rows are counted.
        out: File to create with a record for each prompt, position and layer: .parquet, .csv,
            .csv.gz or .json; a device or a pipe without these gets CSV.
        figure: File for a figure of the summary: .png, .svg or .pdf.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.cli import prompt_columns
    from jaxlens.export import records
    from jaxlens.view.figures import files
    from jaxlens.view.prompt_table import dataframe
    from jaxlens.view.prompt_table import figure as table_figure

    if out is not None:
        records.require(out)
    if figure is not None:
        files.require(figure)
    columns = prompt_columns.Columns(prompt_column, answer_column, metadata, cluster)
    how: dict[str, Any] = {"positions": positions, "top_k": top_k, "decoder": decoder, "bos": bos}
    how |= {"layers": options.layers(layers), "difference": difference}
    how |= {"strict": strict, "leading_space": leading_space}
    with progress.Bar() as bar:
        table = prompt_columns.read(model, file, columns, progress=bar, **how)
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
