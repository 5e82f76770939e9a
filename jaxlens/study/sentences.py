"""Sentences around the numbers of a study: what a line says, or why it says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxlens.study import estimators, readings
from jaxlens.study.inputs import TRAINED
from jaxlens.study.table import Result

Lines = Sequence[Result]


def find(
    results: Lines,
    estimator: str,
    *,
    layer: int | None = None,
    stratum: str = "all",
    run: str = TRAINED,
    contrast: bool = False,
) -> Result | None:
    """The line of an estimator, or None."""
    name = estimators.ESTIMATORS[estimator].name
    for line in results:
        if (line.estimator, line.stratum, line.run) != (name, stratum, run):
            continue
        if line.layer == layer and bool(line.null) == contrast:
            return line
    return None


def said(line: Result | None, words: str, what: str) -> str:
    """A sentence around a number, or that there is none, and why.

    Args:
        line: The number.
        words: Sentence with ``{}`` in its place.
        what: Its subject, for the sentence without a number.
    """
    if line is None or math.isnan(line.estimate):
        why = f": {readings.reason(line)}" if line is not None and line.note else ""
        return f"{what} cannot be estimated{why}."
    return words.replace("{}", readings.format_number(line))


def judged(line: Result, words: str) -> str:
    """The sentence of a judged line: its number, what the sign says, and whether it matters."""
    what, first = readings.label(line), "Primary: " if line.primary else ""
    words = words if first else words[0].upper() + words[1:]
    text = f"{first}{words}: {readings.direction(line)}; {readings.judged(line)}."
    return said(line, text, f"{first}the {what}" if first else f"The {what}")


def directed(line: Result | None, words: str) -> str:
    """A number with what its sign says."""
    what = "" if line is None else readings.label(line)
    text = "" if line is None else readings.direction(line)
    return said(line, f"{words}: {text}.", f"The {what}" if what else "It")
