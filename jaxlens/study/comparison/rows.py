"""The same rows of two runs, summed over all tokens in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxlens import schema
from jaxlens.store import reader
from jaxlens.study.comparison import lines, paired, pairing

ROWS = 8192
"""Rows of each run that are held at once."""

SLICES, SAMPLED = 16, 512
"""Parts of a run, and rows of each, from which the bins of rank correlations are chosen."""

CORRELATED = ("rank_input", "rank_next", "rank_final", "entropy", "kl_final")
"""Quantities of which rank correlations are taken, where both runs record them."""

Batch = Mapping[str, np.ndarray]


def shared(one: reader.Run, two: reader.Run) -> tuple[str, ...]:
    """Quantities of one number a layer that both runs keep rows of."""
    return tuple(
        name
        for name in one.names
        if name in two and schema.QUANTITIES[name].axes == ("row", "layer")
    )


def has_best(one: reader.Run, two: reader.Run) -> bool:
    """Whether both runs keep rows of their best tokens."""
    return "top_id" in one and "top_id" in two


def sums(sides: lines.Sides, names: Sequence[str], groups: pairing.Groups | None) -> paired.Sums:
    """Sums over all tokens, by group of documents.

    Args:
        sides: The runs.
        names: Quantities.
        groups: Group of the document of each row; None where documents are unknown.
    """
    best = has_best(sides.one, sides.two)
    total = paired.Sums(names, len(sides.pairs), best, CORRELATED)
    edges = _edges(sides, names)
    layers = [[pair[side] for pair in sides.pairs] for side in (0, 1)]
    for rows, batches in _batches(sides, (*names, *(("top_id",) if best else ()))):
        group = np.zeros(len(rows), np.int64) if groups is None else groups(rows)
        for name in names:
            one, two = (
                _values(batch[name], name)[:, i] for batch, i in zip(batches, layers, strict=True)
            )
            total.add(name, group, one, two, edges.get(name))
        if best:
            one, two = (batch["top_id"][:, i, 0] for batch, i in zip(batches, layers, strict=True))
            total.agree(group, one, two)
    return total


def _batches(
    sides: lines.Sides, names: Sequence[str]
) -> Iterator[tuple[Int[np.ndarray, " row"], tuple[Batch, ...]]]:
    """The same rows of both runs, whatever their shards are."""
    n_rows = sides.one.n_rows
    for start in range(0, n_rows, ROWS):
        stop = min(start + ROWS, n_rows)
        runs = sides.one, sides.two
        yield np.arange(start, stop), tuple(_rows(run, names, start, stop) for run in runs)


def _rows(run: reader.Run, names: Sequence[str], start: int, stop: int) -> Batch:
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


def _edges(sides: lines.Sides, names: Sequence[str]) -> dict[str, paired.Edges]:
    """Inner edges of the bins of rank correlations: quantiles of an even sample of the rows."""
    correlated = [name for name in names if name in CORRELATED]
    starts = np.linspace(0, max(sides.one.n_rows - SAMPLED, 0), SLICES).astype(int)
    edges: dict[str, list[np.ndarray]] = {name: [] for name in correlated}
    for side, run in enumerate((sides.one, sides.two)):
        parts = [_rows(run, correlated, s, s + SAMPLED) for s in np.unique(starts).tolist()]
        layers = [pair[side] for pair in sides.pairs]
        for name in correlated:
            values = _values(np.concatenate([part[name] for part in parts])[:, layers], name)
            edges[name].append(paired.quantiles(values))
    return {name: np.stack(of_sides) for name, of_sides in edges.items()}
