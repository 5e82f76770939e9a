"""The report: one file that loads nothing and runs nothing.

Text of strangers, such as names of files in notes of the environment, is escaped by the template;
figures are images whose addresses hold them, and the policy of the page allows no script at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import __version__, designs, errors
from jaxlens.report import (
    copying,
    discarding,
    facts,
    preserving,
    primaries,
    resolving,
    series,
    totals,
    twins,
)
from jaxlens.store import access, publish, reader
from jaxlens.study import answers, inputs, table
from jaxlens.view import drawing, plots, visible
from jaxlens.view import page as pages

NAME = "report.html"
"""Where it goes in a run's folder."""

QUESTIONS = {
    "Q0": ("How fast does uncertainty fall?", resolving.figures),
    "Q1": ("Is the input discarded at once?", discarding.figures),
    "Q2": ("Are rare and surprising tokens kept?", preserving.figures),
    "Q3": ("When are copies retrieved?", copying.figures),
}

_PACKAGE = "jaxlens.report"

Figures = Callable[[series.Source], Sequence[plots.Plot]]


@dataclass(frozen=True)
class Section:
    """A question with its answer.

    Attributes:
        name: For links.
        title: The question.
        verdict: What the numbers say.
        figures: See `_shown`.
        lines: Numbers that are of no single layer.
    """

    name: str
    title: str
    verdict: str
    figures: list[dict[str, Any]]
    lines: list[table.Result]


def write(
    run_dir: str | Path, null_dirs: Sequence[str | Path] = (), out: Path | None = None
) -> Path:
    """Writes the report of a run.

    Args:
        run_dir: Finished run; with ``--tallies study`` or full rows it is studied.
        null_dirs: Its null runs, see ``answers.study``.
        out: File; ``report.html`` in the run's folder by default.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: A null run is not comparable, or matplotlib or jinja2 is not installed.
        DataError: A run is damaged.
        StorageError: The file cannot be written.
    """
    target = access.contained(run_dir, NAME) if out is None else out
    publish.publish(target, report(run_dir, null_dirs).encode())
    return target


def report(run_dir: str | Path, null_dirs: Sequence[str | Path] = ()) -> str:
    """The report as text of HTML; see `write`."""
    drawing.require()
    study, why = _studied(run_dir, null_dirs)
    found = facts.gather(run_dir, None if study is None else study.run)
    style = pages.asset("report.css", _PACKAGE)
    return pages.render(
        pages.asset("report.html", _PACKAGE),
        policy=pages.policy([], [style]),
        style=style,
        version=__version__,
        facts=found,
        why=why,
        overview=[] if study else _overview(run_dir, found),
        **_answers(study, found),
        missing=_missing(study, found),
        command=facts.command(found.settings),
        study_command=_command(run_dir, null_dirs),
        spelled=plots.spelled,
    )


def _overview(run_dir: str | Path, found: facts.Facts) -> list[dict[str, Any]]:
    with reader.open_run(run_dir) as run:
        return [_shown(plot, "totals", found) for plot in totals.figures(run)]


def _answers(study: answers.Study | None, found: facts.Facts) -> dict[str, Any]:
    """What the template says of a study; all of it empty where there is none."""
    if study is None:
        return {"study": None, "summary": [], "sections": [], "primaries": [], "nulls": []}
    nulls = [facts.gather(null.path, null) for null in study.nulls]
    return {
        "study": study,
        "summary": [_shown(plot, "summary", found) for plot in primaries.figures(study)],
        "sections": _sections(study, found),
        "primaries": sorted(
            (r for r in study.results if r.primary), key=lambda line: line.question
        ),
        "nulls": [
            (null.name, null.apart_from(found), facts.command(null.settings)) for null in nulls
        ],
    }


def _studied(
    run_dir: str | Path, null_dirs: Sequence[str | Path]
) -> tuple[answers.Study | None, str]:
    """The study, or why there is none: a run without what it needs still has a report."""
    try:
        return answers.study(run_dir, null_dirs), ""
    except errors.ConfigError as error:
        if null_dirs:  # what is asked for is not left out in silence
            raise
        return None, visible.line(f"{error.message}: {error.hint}")


def _sections(study: answers.Study, found: facts.Facts) -> list[Section]:
    source = series.Source(study)
    questions: dict[str, tuple[str, Figures]] = dict(QUESTIONS)
    if study.run.corpus in designs.BINNED:
        questions = {"Q3": ("When are planted copies retrieved?", twins.figures)}
    return [
        Section(
            name=question,
            title=title,
            verdict=study.verdicts.get(question, ""),
            figures=[_shown(plot, question, found) for plot in figures(source)],
            lines=[
                line
                for line in study.results
                if (line.question, line.run) == (question, study.run.label) and line.layer is None
            ],
        )
        for question, (title, figures) in questions.items()
    ]


def _shown(plot: plots.Plot, section: str, found: facts.Facts) -> dict[str, Any]:
    """A figure as the template takes it."""
    return {
        "plot": plot,
        "name": f"{section}-{plot.name}",
        "address": "" if plot.empty else drawing.address(plot),
        "tables": [(panel.title, *panel.table()) for panel in plot.panels],
        "of": found.of,
    }


def _missing(study: answers.Study | None, found: facts.Facts) -> list[tuple[str, str]]:
    """What the report cannot say for want of null runs, and the command that makes each."""
    if study is None:
        return []
    of_text = study.run.corpus not in designs.BINNED
    fresh = "No run of fresh weights was given: what a figure shows may belong to the architecture"
    kinds = {inputs.RANDOM_INIT: fresh + (", and Q1 has no primary." if of_text else ".")}
    if of_text:
        kinds[inputs.SHUFFLED] = (
            "No run over shuffled text was given: what a figure shows may belong to the tokens "
            "alone, not to their context."
        )
    given = {null.kind for null in study.nulls}
    return [
        (words, facts.null_command(found.settings, kind, 1))
        for kind, words in kinds.items()
        if kind not in given
    ]


def _command(run_dir: str | Path, null_dirs: Sequence[str | Path]) -> str:
    words = ["jaxlens", "report", str(run_dir)]
    if null_dirs:
        words += ["--null", *(str(folder) for folder in null_dirs)]
    return visible.line(shlex.join(words))
