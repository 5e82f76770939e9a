"""The page of a series of checkpoints: each primary over training steps, and every number."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlens import errors
from jaxlens.files import fetching, outputs
from jaxlens.study import inputs, readings
from jaxlens.study.checkpoints import steps, study_checkpoints
from jaxlens.study.checkpoints.study_checkpoints import Checkpoints, Line
from jaxlens.study.report import content, facts, series
from jaxlens.view import pages, printable
from jaxlens.view.figures import plots

NAME = "checkpoints.html"
"""Name of the page."""

_PACKAGE = "jaxlens.study.report"
_LETTERS = 40
"""Letters of a label that are shown."""

_PLACE = 16
"""Letters of a label below a figure; a longer one lacks its middle."""


def write(studied: Checkpoints, folder: Path) -> Path:
    """Writes the page into a folder, which is created if absent.

    Args:
        studied: The series.
        folder: Where.

    Raises:
        MissingError: matplotlib or jinja2 is not installed.
        ConfigError: A link, or anything else but a regular file, has its name.
        StorageError: The disk refuses.
    """
    (path,) = outputs.write_all(folder, {NAME: page(studied).encode()})
    return path


def page(studied: Checkpoints) -> str:
    """The page as text of HTML.

    Args:
        studied: The series.
    """
    first = facts.gather(studied.runs[0].path, studied.runs[0])
    count = errors.count(len(studied.runs), "checkpoint")
    of = f"{count}; text: {first.corpus}; {first.n_tokens:,} tokens; decoder {first.decoder}"
    return pages.page(
        "checkpoints.html",
        title=f"{count} · logit lens study",
        styles=[pages.asset(name, _PACKAGE) for name in ("report.css", "checkpoints.css")],
        package=_PACKAGE,
        count=count,
        of=of,
        about=[*_sizes(studied.runs[0]), *(p for p in first.about if p[0] in ("text", "lens"))],
        notes=[printable.line(note) for note in studied.notes],
        findings=findings(studied),
        figures=content.drawn(figures(studied), "over"),
        primaries=[(_heading(lines[0]), lines) for lines in studied.primaries.values()],
        runs=_runs(studied),
        how=command(studied),
        format_number=plots.format_number,
        judgement=readings.judgement,
        direction=readings.direction,
    )


def figures(studied: Checkpoints) -> list[plots.Plot]:
    """A small figure for each primary, all over the same axis.

    Where a primary has intervals, estimates without one are not drawn: a share of next to nothing
    would decide the scale for all others.
    """
    axis = steps.axis(studied.labels)
    places = tuple(_place(studied.labels.texts[i]) for i in axis.order)
    at = None if studied.labels.steps is None else axis.at
    plotted = []
    for name, lines in studied.primaries.items():
        panel = plots.Lines(
            "",
            axis.name,
            places,
            f"estimate, {_unit(lines[0].unit)}",
            (_curve([lines[i] for i in axis.order]),),
            level=0.0,
            region=_region(lines),
            why=_why(lines),
            at=at,
            bars=True,
        )
        meaning = lines[0].meaning
        plotted.append(
            plots.Plot(
                name,
                _heading(lines[0]),
                f"{meaning[0].upper()}{meaning[1:]}.",
                (panel,),
                plots.basis([panel], _basis(lines), _why(lines)),
                small=True,
            )
        )
    return plotted


def _curve(lines: Sequence[Line]) -> plots.Curve:
    numbers = np.array([[line.estimate, line.low, line.high] for line in lines]).T
    known = np.isfinite(numbers[1])
    if known.any():
        numbers[0, ~known] = np.nan
    return plots.Curve("this model", series.STYLES[inputs.TRAINED], *numbers)


def _basis(lines: Sequence[Line]) -> str:
    """What bars are, and which checkpoints have none and are left out."""
    absent = [
        f"{_label(label)} ({printable.line(reason) or 'no reason is known'})"
        for reason, labels in study_checkpoints.reasons(lines).items()
        for label in labels
    ]
    more = f" Not drawn, without an interval: {', '.join(absent)}." if absent else ""
    return f"Bars: 95\u00a0% intervals, each of its run alone.{more}"


def findings(studied: Checkpoints) -> list[tuple[str, list[tuple[str, str]]]]:
    """What each primary is at the first and at the last checkpoint: heading, label and sentence.

    Where both are without a number for one reason, the sentence stands once, without a label.
    """
    order = steps.axis(studied.labels).order
    found = []
    for lines in studied.primaries.values():
        ends = lines[order[0]], lines[order[-1]]
        said = [(_label(line.label), printable.line(readings.finding(line))) for line in ends]
        if len({sentence for _, sentence in said}) == 1:
            said = [("", said[0][1])]
        found.append((_heading(lines[0]), said))
    return found


def command(studied: Checkpoints) -> str:
    """The command that makes the series, in the words of a shell."""
    words = ["jaxlens", "study", "--over", *(fetching.name_of(run.path) for run in studied.runs)]
    if steps.GIVEN in studied.labels.sources:
        words += ["--labels", *studied.labels.texts]
    return printable.line(shlex.join(words))


def _sizes(run: inputs.RunInfo) -> list[tuple[str, str]]:
    shape = run.spec["model"]["architecture"]
    words = (
        f"{shape['n_layer']} blocks, width {shape['n_embd']}, {shape['vocab_size']:,} tokens in "
        "the vocabulary"
    )
    return [("model", words)]


def _runs(studied: Checkpoints) -> list[tuple[str, str, str, str]]:
    """Of each run its label, its directory, where the label is from, and its weights."""
    labels = studied.labels
    return [
        (
            _label(labels.texts[i]),
            printable.line(fetching.name_of(run.path)),
            labels.sources[i],
            str(run.spec["model"]["sha256"]),
        )
        for i, run in enumerate(studied.runs)
    ]


def _heading(line: Line) -> str:
    label = readings.label(line)
    return f"{line.question} {label[0].upper()}{label[1:]}"


def _unit(unit: str) -> str:
    return {"1": "a share", "depth": "share of the depth"}.get(unit, unit)


def _region(lines: Sequence[Line]) -> float:
    """The smallest effect of interest, where it is one number; that of slopes depends on a run."""
    known = [line.smallest for line in lines if np.isfinite(line.smallest)]
    return max(known) if known and max(known) - min(known) <= 0.02 * max(known) else np.nan


def _why(lines: Sequence[Line]) -> str:
    """The first reason for which a checkpoint has no interval."""
    lacking = (readings.reason(line) for line in lines if not np.isfinite(line.low))
    return printable.line(next(filter(None, lacking), ""))


def _label(text: str) -> str:
    shown = printable.line(text)
    return shown if len(shown) <= _LETTERS else f"{shown[: _LETTERS - 1]}…"


def _place(text: str) -> str:
    shown = printable.line(text)
    return shown if len(shown) <= _PLACE else f"{shown[:6]}…{shown[7 - _PLACE :]}"
