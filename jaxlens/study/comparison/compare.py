"""Two runs over the same tokens: how what they record differs, layer by layer.

Differences are first minus second, of each token alone, so that what makes a text hard for both
runs cancels. Tokens weigh alike. Intervals are those of ``resample``: a bootstrap over groups of
documents, in which a document keeps its pairs, with a t distribution of as many degrees of freedom
as the documents are worth. They hold for each line by itself, not for all lines at once.

Reference:
    Spearman 1904, doi:10.2307/1412159; Fisher 1915, doi:10.1093/biomet/10.4.507 (the scale on which
    intervals of rank correlations are symmetric).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.store import reader
from jaxlens.study import table
from jaxlens.study.comparison import lines, pairing, rows

PICTURE = "comparison.svg"
"""The figure, in the folder of the table."""


@dataclass(frozen=True)
class Compared:
    """Two runs and their differences.

    Attributes:
        first: Folder of one run.
        second: Folder of the other.
        differing: Settings that differ, each with both values.
        layers: Names of the layers that belong together.
        by_depth: Whether they were aligned by relative depth, as models of other depth are.
        from_rows: Whether tokens were paired; otherwise only totals were there.
        notes: What holds of all lines, in words.
        lines: The numbers, by quantity and layer.
    """

    first: Path
    second: Path
    differing: Mapping[str, tuple[object, object]]
    layers: tuple[tuple[str, str], ...]
    by_depth: bool
    from_rows: bool
    notes: tuple[str, ...]
    lines: tuple[lines.Line, ...]


def compare(first: str | Path, second: str | Path) -> Compared:
    """Compares two finished runs over the same tokens, in bounded memory.

    Where both keep rows, tokens are paired; otherwise means of their totals are compared, without
    intervals.

    Args:
        first: One run.
        second: The other: other weights, decoder, precision or settings.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: They are of other tokens, or the same run.
        DataError: A run is damaged.
    """
    with reader.open_run(first) as one, reader.open_run(second) as two:
        sides = lines.Sides(one, two, pairing.require(one, two))
        notes = list(pairing.notes(one, two, sides.pairs))
        names = rows.shared(one, two)
        from_rows = bool(names) or rows.has_best(one, two)
        if from_rows:
            groups = pairing.groups(one, two)
            numbers = list(
                lines.of_sums(sides, rows.sums(sides, names, groups), groups is not None)
            )
        else:
            notes.append("no rows in both runs: means of their totals, without intervals")
            numbers = list(lines.of_totals(sides))
        if not any(math.isfinite(line.estimate) for line in numbers):
            raise errors.ConfigError(
                f"{first} and {second} record nothing in common", "sweep both with the same --rows"
            )
        return Compared(
            first=Path(first),
            second=Path(second),
            differing=pairing.differing(one.spec, two.spec),
            layers=sides.layer_names,
            by_depth=len(one.layer_names) != len(two.layer_names),
            from_rows=from_rows,
            notes=tuple(notes),
            lines=tuple(numbers),
        )


def write(compared: Compared, folder: Path) -> list[Path]:
    """Writes ``comparison.parquet``, ``comparison.csv`` and ``comparison.json``.

    Raises:
        MissingError: pyarrow is not installed.
        StorageError: The disk refuses.
    """
    columns, stem = lines.Line, "comparison"
    return table.write(compared.lines, folder, about(compared), kind=columns, stem=stem)


def about(compared: Compared) -> dict[str, object]:
    """What the numbers are of, as plain values."""
    return {
        "first": str(compared.first),
        "second": str(compared.second),
        "differing": {what: list(values) for what, values in compared.differing.items()},
        "layers": [list(pair) for pair in compared.layers],
        "aligned_by_depth": compared.by_depth,
        "paired_tokens": compared.from_rows,
        "notes": list(compared.notes),
    }


def document(compared: Compared) -> dict[str, object]:
    """Everything as plain values; what does not exist is null."""
    return about(compared) | {"comparison": table.plain(compared.lines)}
