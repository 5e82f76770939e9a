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

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxlens import errors, schema
from jaxlens.store import reader, summary
from jaxlens.study import table
from jaxlens.study.comparison import paired, pairing
from jaxlens.study.stats import bootstrap

ROWS = 8192
"""Rows of each run that are held at once."""

SLICES, SAMPLED = 16, 512
"""Parts of a run, and rows of each, from which the bins of rank correlations are chosen."""

CORRELATED = ("rank_input", "rank_next", "rank_final", "entropy", "kl_final")
"""Quantities of which rank correlations are taken, where both runs record them."""

NO_ROWS = "totals only"
NO_DOCUMENTS = "no index of the tokens, so documents are unknown"

PICTURE = "comparison.svg"
"""The figure, in the folder of the table."""

MEAN, AGREEMENT, CORRELATION = "mean difference", "agreement", "rank correlation"


@dataclass(frozen=True)
class Line:
    """One number of a comparison.

    Attributes:
        quantity: As recorded; ``top_id`` for the best token.
        statistic: ``mean difference``, ``agreement`` or ``rank correlation``.
        first_layer: Layer of the first run.
        second_layer: That of the second.
        depth: Layer over number of blocks, in the shallower run.
        unit: Unit; ``ln rank`` for ranks.
        first: Mean in the first run, of ranks of ln rank; NaN where the statistic has none.
        second: Mean in the second.
        estimate: The number: first minus second, a share of tokens, or Spearman's coefficient.
        low: Lower end of the 95 % interval; NaN where there is none, and `note` says why.
        high: Upper end.
        se: Standard error.
        n: Tokens that both runs have a value of.
        clusters: Groups of documents that hold any; documents of few are as many.
        note: Why there is no number or no interval, or what it rests on.
    """

    quantity: str
    statistic: str
    first_layer: str
    second_layer: str
    depth: float
    unit: str
    first: float
    second: float
    estimate: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    note: str = ""


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
    lines: tuple[Line, ...]


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
        pairs = pairing.require(one, two)
        by_depth = len(one.layer_names) != len(two.layer_names)
        shared = _shared(one, two)
        notes = list(pairing.notes(one, two, pairs))
        from_rows = bool(shared) or ("top_id" in one and "top_id" in two)
        if from_rows:
            lines = _of_rows(one, two, pairs, shared)
        else:
            notes.append("no rows in both runs: means of their totals, without intervals")
            lines = _of_totals(one, two, pairs)
        if not any(math.isfinite(line.estimate) for line in lines):
            raise errors.ConfigError(
                f"{first} and {second} record nothing in common", "sweep both with the same --rows"
            )
        return Compared(
            first=Path(first),
            second=Path(second),
            differing=pairing.differing(one.spec, two.spec),
            layers=tuple((one.layer_names[i], two.layer_names[j]) for i, j in pairs),
            by_depth=by_depth,
            from_rows=from_rows,
            notes=tuple(notes),
            lines=tuple(lines),
        )


def _shared(one: reader.Run, two: reader.Run) -> tuple[str, ...]:
    """Quantities of one number a layer that both runs keep rows of."""
    return tuple(
        name
        for name in one.names
        if name in two and schema.QUANTITIES[name].axes == ("row", "layer")
    )


def _of_rows(
    one: reader.Run, two: reader.Run, pairs: pairing.Pairs, names: Sequence[str]
) -> list[Line]:
    best = "top_id" in one and "top_id" in two
    sums = paired.Sums(names, len(pairs), best, CORRELATED)
    edges = _edges(one, two, pairs, names)
    index = [[pair[side] for pair in pairs] for side in (0, 1)]
    group_of = pairing.groups(one, two)
    for rows, batches in _batches(one, two, (*names, *(("top_id",) if best else ()))):
        group = np.zeros(len(rows), np.int64) if group_of is None else group_of(rows)
        for name in names:
            sides = [
                _values(batch[name], name)[:, i] for batch, i in zip(batches, index, strict=True)
            ]
            sums.add(name, group, sides[0], sides[1], edges.get(name))
        if best:
            ids = [batch["top_id"][:, i, 0] for batch, i in zip(batches, index, strict=True)]
            sums.agree(group, ids[0], ids[1])
    note = NO_DOCUMENTS if group_of is None else ""
    return [*_lines(sums, one, two, pairs, note)]


def _lines(
    sums: paired.Sums, one: reader.Run, two: reader.Run, pairs: pairing.Pairs, note: str
) -> Iterator[Line]:
    for name, count in sums.count.items():
        for pair, estimate in enumerate(paired.mean_differences(sums, name)):
            sides = (sums.first[name], sums.second[name])
            means = [_mean(total[:, pair], count[:, pair]) for total in sides]
            yield _line(one, two, pairs, pair, name, MEAN, _told(estimate, note), means)
    if sums.equal is not None:
        for pair, estimate in enumerate(paired.agreements(sums)):
            yield _line(one, two, pairs, pair, "top_id", AGREEMENT, _told(estimate, note))
    for name, joint in sums.joint.items():
        for pair in range(len(pairs)):
            told = _told(paired.rank_correlation(joint[:, pair]), note)
            yield _line(one, two, pairs, pair, name, CORRELATION, told)


def _told(found: bootstrap.Estimate, note: str) -> bootstrap.Estimate:
    """Without an interval where documents are unknown, or where nothing varies between them."""
    why = note or (paired.CONSTANT if found.se == 0 else "")
    clusters = 0 if note else found.clusters
    return bootstrap.missing(why, found.value, found.n, clusters) if why else found


def _line(
    one: reader.Run,
    two: reader.Run,
    pairs: pairing.Pairs,
    pair: int,
    name: str,
    statistic: str,
    found: bootstrap.Estimate,
    means: Sequence[float] = (math.nan, math.nan),
) -> Line:
    i, j = pairs[pair]
    depth = min((i, len(one.layer_names)), (j, len(two.layer_names)), key=lambda side: side[1])
    quantity = schema.QUANTITIES[name]
    unit = "ln rank" if quantity.kind == "rank" else quantity.unit
    return Line(
        quantity=name,
        statistic=statistic,
        first_layer=one.layer_names[i],
        second_layer=two.layer_names[j],
        depth=depth[0] / (depth[1] - 1),
        unit=unit if statistic == MEAN else "1",
        first=means[0],
        second=means[1],
        estimate=found.value,
        low=found.low,
        high=found.high,
        se=found.se,
        n=found.n,
        clusters=found.clusters,
        note=found.note,
    )


def _of_totals(one: reader.Run, two: reader.Run, pairs: pairing.Pairs) -> list[Line]:
    """Means of totals; a run counts every value that it has, paired or not."""
    sides = [summary.statistics(run.tally, run.tally_labels) for run in (one, two)]
    counts = [run.tally["count"] for run in (one, two)]
    lines = []
    for place, name in enumerate(schema.SUMMED):
        key = f"mean_ln_{name}" if schema.QUANTITIES[name].kind == "rank" else f"mean_{name}"
        if key not in sides[0] or key not in sides[1]:
            continue
        for pair, (i, j) in enumerate(pairs):
            means = [float(sides[0][key].values[i]), float(sides[1][key].values[j])]
            n = int(min(counts[0][place, i], counts[1][place, j]))
            found = bootstrap.missing(NO_ROWS, means[0] - means[1], n)
            lines.append(_line(one, two, pairs, pair, name, MEAN, found, means))
    return lines


def _batches(
    one: reader.Run, two: reader.Run, names: Sequence[str]
) -> Iterator[tuple[Int[np.ndarray, " row"], tuple[Mapping[str, np.ndarray], ...]]]:
    """The same rows of both runs, whatever their shards are."""
    for start in range(0, one.n_rows, ROWS):
        stop = min(start + ROWS, one.n_rows)
        yield np.arange(start, stop), tuple(_rows(run, names, start, stop) for run in (one, two))


def _rows(run: reader.Run, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
    parts = list(run.batches(names, ROWS, start, stop))
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _values(block: np.ndarray, name: str) -> Float[np.ndarray, "row layer"]:
    """Numbers as they are averaged: of ranks logarithms; NaN where missing."""
    values = block.astype(np.float64)
    if schema.QUANTITIES[name].kind != "rank":
        return values
    return np.log(np.where(values > 0, values, np.nan))


def _edges(
    one: reader.Run, two: reader.Run, pairs: pairing.Pairs, names: Sequence[str]
) -> dict[str, paired.Edges]:
    """Inner edges of the bins of rank correlations: quantiles of an even sample of the rows."""
    chosen = [name for name in names if name in CORRELATED]
    starts = np.linspace(0, max(one.n_rows - SAMPLED, 0), SLICES).astype(int)
    found: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for side, run in enumerate((one, two)):
        rows = [_rows(run, chosen, start, start + SAMPLED) for start in np.unique(starts).tolist()]
        places = [pair[side] for pair in pairs]
        for name in chosen:
            values = _values(np.concatenate([part[name] for part in rows])[:, places], name)
            found[name].append(paired.quantiles(values))
    return {name: np.stack(sides) for name, sides in found.items()}


def _mean(total: np.ndarray, count: np.ndarray) -> float:
    n = int(count.sum())
    return float(total.sum() / n) if n else math.nan


def write(found: Compared, folder: Path) -> list[Path]:
    """Writes ``comparison.parquet``, ``comparison.csv`` and ``comparison.json``.

    Raises:
        MissingError: pyarrow is not installed.
        StorageError: The disk refuses.
    """
    return table.write(found.lines, folder, about(found), kind=Line, stem="comparison")


def about(found: Compared) -> dict[str, object]:
    """What the numbers are of, as plain values."""
    return {
        "first": str(found.first),
        "second": str(found.second),
        "differing": {what: list(values) for what, values in found.differing.items()},
        "layers": [list(pair) for pair in found.layers],
        "aligned_by_depth": found.by_depth,
        "paired_tokens": found.from_rows,
        "notes": list(found.notes),
    }


def document(found: Compared) -> dict[str, object]:
    """Everything as plain values; what does not exist is null."""
    lines = [table.plain(dataclasses.asdict(line)) for line in found.lines]
    return about(found) | {"comparison": lines}
