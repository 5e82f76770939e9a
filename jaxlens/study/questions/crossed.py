"""Q2, continued. Slope and bend of the excess on rarity, with effects of types and of documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from jaxlens.study import positions, readings, table
from jaxlens.study.inputs import Inputs
from jaxlens.study.questions import rarity
from jaxlens.study.sentences import find, said
from jaxlens.study.stats import bootstrap, components, crossed
from jaxlens.study.table import Result, result

NAMES = crossed.NAMES
"""Slope and bend."""


def estimate(run: Inputs) -> list[Result]:
    """Both at every layer of one run, trained or null."""
    fits = list(_fits(run, range(run.n_layers)))
    centre = "" if run.positions is None else f"centred at {run.positions.centre:.3f} nat"
    return [
        line
        for place, name in enumerate(NAMES)
        for line in table.by_layer(
            run,
            name,
            [
                crossed.estimate(one, place) if one else bootstrap.missing(positions.NO_ROWS)
                for one in fits
            ],
            smallest=_smallest(run, name),
            note=centre,
        )
    ]


def contrasts(run: Inputs, nulls: Sequence[Inputs]) -> list[Result]:
    """Both at mid depth minus null runs, paired by token types and by groups of documents."""
    lines = []
    for kind in dict.fromkeys(null.kind for null in nulls):
        same = [null for null in nulls if null.kind == kind]
        ours, *others = (next(_fits(one, [run.middle])) for one in (run, *same))
        known = [one for one in others if one]
        for place, name in enumerate(NAMES):
            lines.append(
                result(
                    run,
                    name,
                    crossed.difference(ours, known, place)
                    if ours and len(known) == len(same)
                    else bootstrap.missing(positions.NO_ROWS),
                    layer=run.middle,
                    null=f"{kind} x {len(same)}",
                    smallest=_smallest(run, name),
                )
            )
    return lines


def sentences(results: Sequence[Result], run: Inputs, nulls: Sequence[Inputs]) -> list[str]:
    """What the two are at mid depth, and in each null run.

    Args:
        results: All lines of the study.
        run: The trained run.
        nulls: Its null runs.
    """
    slope, bend = (find(results, name, layer=run.middle) for name in NAMES)
    assert slope is not None and bend is not None, "every study of text estimates them"
    words = [
        said(
            slope,
            f"On {slope.n:,} sampled positions, with crossed random effects of token types and "
            "documents, the slope of excess preservation on rarity is {} nat per nat "
            f"({readings.direction(slope)}), and the coefficient of squared rarity "
            f"{readings.format_number(bend)} ({readings.direction(bend)}).",
            f"The {readings.label(slope)}",
        )
    ]
    if math.isnan(slope.estimate):
        return words
    for null in nulls:
        two = [find(results, name, layer=run.middle, run=null.label) for name in NAMES]
        one, other = (readings.format_number(line) for line in two)
        words.append(f"In {null.label} the two are {one} and {other}.")
    return words


def _smallest(run: Inputs, name: str) -> float:
    """Smallest effect of interest: that of other slopes on rarity; none is set for the bend."""
    return rarity.smallest_slope(run) if name == NAMES[0] else math.nan


def _fits(run: Inputs, layers: Sequence[int]) -> Iterator[crossed.Fit | None]:
    """Of some layers; None where a run has no rows to sample."""
    sampled = run.positions
    if sampled is None:
        yield from [None] * len(layers)
        return
    x = sampled.rarity[sampled.token]
    rows = crossed.Rows(sampled.token, x, sampled.level, sampled.group)
    design = components.Design.of(sampled.token, sampled.group)
    for layer in layers:
        yield crossed.fit(rows, design, np.log(sampled.rank[..., layer]))
