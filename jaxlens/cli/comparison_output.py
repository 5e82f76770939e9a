"""What comparisons print: of two prompts, and of two runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from jaxlens.cli import streams, terminal

if TYPE_CHECKING:
    from pathlib import Path

    from jaxlens.study.comparison import compare, lines
    from jaxlens.view.comparison.comparison import Comparison


def show_prompts(
    comparison: Comparison,
    metric: str | None,
    html: Path | None,
    pictures: Sequence[Path],
    as_json: bool,
) -> None:
    """Writes the files that were asked for; without any, the grid or JSON goes to stdout."""
    from jaxlens.files import outputs
    from jaxlens.view.comparison import figure
    from jaxlens.view.comparison import terminal as difference_grid

    comparison.view(metric)  # refused before anything is written
    if html is not None:
        outputs.write(html, comparison.html(metric).encode())
    for path in pictures:
        figure.draw(comparison, path, metric)
    for path in [*([html] if html else []), *pictures]:
        terminal.say(f"wrote {path}")
    if as_json:
        print(json.dumps(comparison.document(), allow_nan=False))
    elif html is None and not pictures:
        difference_grid.show(comparison, metric, sys.stdout)


def show_runs(compared: compare.Compared, written: Sequence[Path]) -> None:
    """What differs between two runs, then a table of differences by layer."""
    terminal.say(f"A: {compared.first}")
    terminal.say(f"B: {compared.second}")
    settings = [f"{what} {a!s:.20} / {b!s:.20}" for what, (a, b) in compared.differing.items()]
    terminal.say(f"A / B: {', '.join(settings) or 'the same settings'}")
    terminal.say("; ".join(compared.notes))
    how = "; 95 % intervals clustered by document" if compared.from_rows else ""
    terminal.say(f"differences are A minus B, of ranks by ln rank{how}")
    columns: dict[str, list[str]] = {}
    for line in compared.lines:
        name = f"{line.statistic}: " if line.statistic != "mean difference" else ""
        columns.setdefault(name + line.quantity, []).append(_estimated(line))
    layers = [a if a == b else f"{a} | {b}" for a, b in compared.layers]
    for block in _blocks(layers, columns):
        streams.say("\n" + terminal.aligned(block))
    why = sorted({line.note for line in compared.lines if line.note})
    if why and compared.from_rows:
        streams.say("\nwhere there is no interval: " + "; ".join(why))
    if written:
        terminal.say(f"{len(compared.lines)} lines: {', '.join(str(path) for path in written)}")


def _estimated(line: lines.Line) -> str:
    if math.isnan(line.estimate):
        return "-"
    words = f"{line.estimate:.4f}" if line.statistic != "mean difference" else _signed(line)
    return words if math.isnan(line.low) else f"{words} [{line.low:.4f}, {line.high:.4f}]"


def _signed(line: lines.Line) -> str:
    return f"{line.estimate:+.4f}" if line.estimate else "0"


def _blocks(
    layers: Sequence[str], columns: Mapping[str, Sequence[str]], width: int = 100
) -> Iterator[list[list[str]]]:
    """Tables of as many columns as fit, the layers at the left of each."""
    label = max(map(len, layers))
    block, used = [["layer", *layers]], label
    for name, cells in columns.items():
        size = max(len(name), *map(len, cells)) + 2
        if len(block) > 1 and used + size > width:
            yield [list(row) for row in zip(*block, strict=True)]
            block, used = block[:1], label
        block.append([name, *cells])
        used += size
    yield [list(row) for row in zip(*block, strict=True)]
