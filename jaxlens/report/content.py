"""What a report holds, before it is a page: figures with their numbers, by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlens import designs, errors
from jaxlens.report import (
    copying,
    decoders,
    discarding,
    excerpt,
    facts,
    preserving,
    primaries,
    resolving,
    series,
    totals,
    twins,
)
from jaxlens.store import reader
from jaxlens.study import answers, inputs, table
from jaxlens.view import drawing, pictures, plots, visible

QUESTIONS = {
    "Q0": ("How fast does uncertainty fall?", resolving.figures),
    "Q1": ("Is the input discarded at once?", discarding.figures),
    "Q2": ("Are rare and surprising tokens kept?", preserving.figures),
    "Q3": ("When are copies retrieved?", copying.figures),
}

OF_TWINS = {"Q3": ("When are planted copies retrieved?", twins.figures)}

Figures = Callable[[series.Source], Sequence[plots.Plot]]


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: For links and files; unique in the report.
        title: Heading.
        caption: One sentence: what to see.
        basis: What intervals and bands are, or why there are none.
        svg: The picture; empty where there is no number to draw.
        tables: Its numbers: title, heading and lines of each panel.
    """

    name: str
    title: str
    caption: str
    basis: str
    svg: str
    tables: tuple[tuple[str, list[str], list[list[str]]], ...]

    @property
    def address(self) -> str:
        """The picture as the address of an image that lies in the page."""
        return drawing.address(self.svg) if self.svg else ""


@dataclass(frozen=True)
class Section:
    """A question with its answer.

    Attributes:
        name: For links.
        title: The question.
        verdict: What the numbers say.
        figures: Its figures.
        lines: Numbers that are of no single layer.
    """

    name: str
    title: str
    verdict: str
    figures: tuple[Figure, ...]
    lines: tuple[table.Result, ...]


@dataclass(frozen=True)
class Content:
    """A report.

    Attributes:
        facts: Of the run.
        nulls: Facts of its null runs.
        why: Why there is no study; empty where there is one.
        overview: Figures of the totals, where there is no study.
        excerpt: Some tokens of the text, where the run has their rows.
        primaries: Lines of the primaries.
        summary: Their figure.
        sections: A question each.
        variants: Of each primary its meaning, and its line for each decoder.
        decoders: Figures that compare decoders.
        missing: What cannot be said for want of null runs, and a command that makes each.
    """

    facts: facts.Facts
    nulls: tuple[facts.Facts, ...] = ()
    why: str = ""
    overview: tuple[Figure, ...] = ()
    excerpt: tuple[Figure, ...] = ()
    primaries: tuple[table.Result, ...] = ()
    summary: tuple[Figure, ...] = ()
    sections: tuple[Section, ...] = ()
    variants: tuple[tuple[str, list[tuple[str, table.Result]]], ...] = ()
    decoders: tuple[Figure, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, in the order of the page."""
        answers = tuple(figure for section in self.sections for figure in section.figures)
        return (*self.overview, *self.summary, *self.excerpt, *answers, *self.decoders)


def gather(
    run_dir: str | Path,
    null_dirs: Sequence[str | Path] = (),
    variant_dirs: Sequence[str | Path] = (),
) -> Content:
    """Studies a run and draws all of it.

    Args:
        run_dir: Finished run; with ``--tallies study`` or full rows it is studied.
        null_dirs: Its null runs, see ``answers.study``.
        variant_dirs: Runs that differ from it in their decoder alone.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: A null or a variant is not comparable, or matplotlib is not installed.
        DataError: A run is damaged.
    """
    pictures.require_library()
    try:
        study = answers.study(run_dir, null_dirs)
    except errors.ConfigError as error:
        if null_dirs or variant_dirs:  # what is asked for is not left out in silence
            raise
        return _without_study(run_dir, visible.line(f"{error.message}: {error.hint}"))
    found = facts.gather(run_dir, study.run)
    others = decoders.studies(study, variant_dirs)
    compared = decoders.figures(study, others) if others else []
    return Content(
        facts=found,
        nulls=tuple(facts.gather(null.path, null) for null in study.nulls),
        primaries=tuple(primaries.lines(study)),
        summary=_drawn(primaries.figures(study), "summary"),
        excerpt=tuple(shown for folder in (run_dir, *variant_dirs) for shown in _excerpt(folder)),
        sections=_sections(study),
        variants=tuple(decoders.compared(study, others)) if others else (),
        decoders=_drawn(compared, "variants"),
        missing=tuple(_missing(study, found)),
    )


def _without_study(run_dir: str | Path, why: str) -> Content:
    """A run without what the study needs still has its totals."""
    with reader.open_run(run_dir) as run:
        overview = _drawn(totals.figures(run), "totals")
    found = facts.gather(run_dir)
    return Content(facts=found, why=why, overview=overview, excerpt=_excerpt(run_dir))


def _excerpt(run_dir: str | Path) -> tuple[Figure, ...]:
    with reader.open_run(run_dir) as run:
        try:
            shown = excerpt.read(run)
        except errors.MissingError:  # the shards were passed on without their tokens
            shown = None
    if shown is None:
        return ()
    return (
        Figure(
            name=f"excerpt-{shown.decoders[0]}",
            title=f"Some tokens of the text, decoder {shown.decoders[0]}",
            caption="The first tokens of a document: best token and rank of the model's own answer "
            "at each layer, divergence from the output, rank of the input, divergence from it.",
            basis="Single tokens, no interval; darker is nearer; ★ the model's answer is the next.",
            svg=excerpt.svg(shown),
            tables=excerpt.tables(shown),
        ),
    )


def _sections(study: answers.Study) -> tuple[Section, ...]:
    source = series.Source(study)
    questions: dict[str, tuple[str, Figures]] = dict(QUESTIONS)
    if study.run.corpus in designs.BINNED:
        questions = dict(OF_TWINS)
    return tuple(
        Section(
            name=question,
            title=title,
            verdict=study.verdicts.get(question, ""),
            figures=_drawn(figures(source), question),
            lines=tuple(
                line
                for line in study.results
                if (line.question, line.run) == (question, study.run.label) and line.layer is None
            ),
        )
        for question, (title, figures) in questions.items()
    )


def _drawn(found: Sequence[plots.Plot], section: str) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=f"{section}-{plot.name}",
            title=plot.title,
            caption=plot.caption,
            basis=plot.basis,
            svg="" if plot.empty else drawing.svg(plot),
            tables=tuple((panel.title, *panel.table()) for panel in plot.panels),
        )
        for plot in found
    )


def _missing(study: answers.Study, found: facts.Facts) -> list[tuple[str, str]]:
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
