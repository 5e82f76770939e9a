"""The primaries side by side, each in units of the smallest effect that matters."""

from __future__ import annotations

import textwrap

import numpy as np

from jaxlens.study import inputs, readings, study, table
from jaxlens.study.report import series
from jaxlens.view.figures import plots

_LETTERS = 56
"""Of a line of a label: the estimates have the greater part of the width."""


def lines(studied: study.Study) -> list[table.Result]:
    """The lines of the primaries, in the order of the questions."""
    return sorted((r for r in studied.results if r.primary), key=lambda line: line.question)


def figures(studied: study.Study) -> list[plots.Plot]:
    """One figure; none where the corpus has no primaries or none has a number."""
    known = [line for line in lines(studied) if np.isfinite(line.estimate) and line.smallest > 0]
    if not known:
        return []
    numbers = np.array([_units(line) for line in known]).T
    style = series.STYLES[inputs.TRAINED]
    panel = plots.Points(
        "",
        "estimate, in units of the smallest effect that matters",
        tuple(_row(line) for line in known),
        (plots.Curve("this model", style, *numbers),),
        level=0.0,
        region=1.0,
    )
    return [
        plots.Plot(
            "primaries",
            "The primaries",
            "Each estimate divided by the smallest effect of interest, which was set in advance: "
            "an interval inside the grey region is too small to matter, one beyond it is large "
            "enough, and one that crosses its edge is undecided.",
            (panel,),
            plots.basis([panel], "Bars: 95\u00a0% intervals.", readings.reason(known[0])),
        )
    ]


def _units(line: table.Result) -> list[float]:
    return [value / line.smallest for value in (line.estimate, line.low, line.high)]


def _row(line: table.Result) -> str:
    """The noun of a primary, and below it what its sign says, in lines that leave room."""
    noun = textwrap.fill(f"{line.question}  {readings.label(line)}", _LETTERS)
    return f"{noun}\n{textwrap.fill(readings.direction(line), _LETTERS)}"
