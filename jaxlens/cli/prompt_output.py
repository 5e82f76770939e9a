"""What prompts print: grids, and the summary of a table of prompts."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxlens import errors
from jaxlens.cli import streams, terminal
from jaxlens.files import outputs

if TYPE_CHECKING:
    from pathlib import Path

    from jaxlens.api.prompts.table import PromptTable
    from jaxlens.view.prompt import prompt

logger = logging.getLogger("jaxlens")

_SHOWN_COLUMNS = 20


def show(
    prompts: Sequence[prompt.Prompt],
    decoder: str,
    metric: str | None,
    html: Path | None,
    pictures: Sequence[Path],
    as_json: bool,
) -> None:
    """Writes the files that were asked for; without any, the grid or JSON goes to stdout."""
    from jaxlens.view.prompt import html as page
    from jaxlens.view.prompt import raster
    from jaxlens.view.prompt import terminal as grid

    first = prompts[0]
    named = first.view(metric or "p_top")
    if html is not None:
        outputs.write(html, page.page(prompts, named.name).encode())
    for path in pictures:
        raster.draw(prompts, path, decoder, None if metric is None else (metric,))
    for path in [*([html] if html else []), *pictures]:
        terminal.say(f"wrote {path}")
    if as_json:
        print(json.dumps([shown.document() for shown in prompts], allow_nan=False))
    elif html is None and not pictures:
        for number, shown in enumerate(prompts):
            if number:
                print()
            grid.show(shown, named, decoder, sys.stdout)


@contextlib.contextmanager
def beside(*paths: Path | None) -> Iterator[None]:
    """Prints to stderr where one of the files that are written is stdout itself."""
    is_shared = any(path is not None and _is_stdout(path) for path in paths)
    with contextlib.redirect_stdout(sys.stderr) if is_shared else contextlib.nullcontext():
        yield


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:
        return False


def show_table(table: PromptTable, summary: Mapping[str, Any], name: str, basis: str) -> None:
    """Problems and how answers were read, on stderr; the summary, by answer, on stdout."""
    for what, count in table.problem_counts().items():
        first = next(one.prompt for one in table.problems if one.what == what)
        rows = errors.count(count, "row")
        logger.warning("%s: %s; the first is row %d, from 0", rows, what, first)
    if table.trailing_space:
        ends = (
            f"prompts that end with a space, where no word can begin: {len(table.trailing_space)}"
        )
        logger.warning("%s; the first is row %d, from 0", ends, table.trailing_space[0])
    read = len(table.last_rows)
    terminal.say(f"{name}: {read:,} of {table.n_prompts:,} prompts read, decoder {table.decoder}")
    if not table.answers.names:
        others = ", ".join(map(shlex.quote, list(table.metadata)[:_SHOWN_COLUMNS]))
        others += ", ..." * (len(table.metadata) > _SHOWN_COLUMNS)
        named = f"name their columns with --answer-column; other columns: {others or 'none'}"
        terminal.say(f"no answers: {named}")
        return
    counts = {what: count for what, count in table.read_answers.counts().items() if count}
    terminal.say(f"answers: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
    for answer in table.answers.names:
        cells = [("layer", "prompts", f"{answer} on top", "interval", "median rank", "mean p")]
        for at in (i for i, one in enumerate(summary["answer"]) if one == answer):
            low, high = (float(summary[end][at]) for end in ("low", "high"))
            interval = "-" if math.isnan(low) else f"{low:.1%} to {high:.1%}"
            share, rank, p = (float(summary[n][at]) for n in ("share", "median_rank", "mean_p"))
            words = (
                terminal.cell(share, "{:.1%}"),
                interval,
                terminal.cell(rank, "{:,.1f}"),
                terminal.cell(p, "{:.3g}"),
            )
            cells.append((str(summary["layer_name"][at]), f"{summary['n'][at]:,}", *words))
        streams.say(terminal.aligned(cells))
    terminal.say(basis)
