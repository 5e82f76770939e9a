"""What a report holds, before it is a page: figures with their numbers, by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlens import designs, errors
from jaxlens.store import reader
from jaxlens.study import study, table, verdicts
from jaxlens.study.report import (
    commands,
    copying,
    decoders,
    discarding,
    excerpt,
    facts,
    induction,
    primaries,
    rarity,
    series,
    totals,
    uncertainty,
)
from jaxlens.view import printable
from jaxlens.view.figures import files, palette, plots
from jaxlens.view.figures import svg as drawing

QUESTIONS = {
    "Q0": ("How does uncertainty change with depth?", uncertainty.figures),
    "Q1": ("Is the input discarded at once?", discarding.figures),
    "Q2": ("Are rare and surprising tokens kept?", rarity.figures),
    "Q3": ("When are copies retrieved?", copying.figures),
}

OF_TWINS = {"Q3": ("When are planted copies retrieved?", induction.figures)}

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
        dark: The same for a dark ground, where colours are values; a filter turns all others.
        lacking: Titles of panels without a number, each with the reason.
        tables: Its numbers: title, heading and lines of each panel.
    """

    name: str
    title: str
    caption: str
    basis: str
    svg: str
    tables: tuple[tuple[str, list[str], list[list[str]]], ...]
    lacking: tuple[tuple[str, str], ...] = ()
    dark: str = ""

    @property
    def why(self) -> str:
        """Why there is no picture."""
        known = dict.fromkeys(why for _, why in self.lacking if why)
        return "; ".join(known) or "no number of this figure could be estimated"

    @property
    def address(self) -> str:
        """The picture as the address of an image that lies in the page."""
        return drawing.address(self.svg) if self.svg else ""

    @property
    def dark_address(self) -> str:
        """The same of the picture for a dark ground."""
        return drawing.address(self.dark) if self.dark else ""


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
        others: Facts of its variants.
        why: Why there is no study; empty where there is one.
        overview: Figures of the totals, where there is no study.
        findings: What was found, in plain words: question and sentence.
        excerpt: Some tokens of the text, where the run has their rows.
        no_excerpt: Why there is none; empty where there is one.
        primaries: Lines of the primaries.
        summary: Their figure.
        sections: A question each.
        variants: Of each primary its meaning, and its line for each decoder.
        decoders: Figures that compare decoders.
        missing: What cannot be said for want of null runs, and a command that makes each.
    """

    facts: facts.Facts
    nulls: tuple[facts.Facts, ...] = ()
    others: tuple[facts.Facts, ...] = ()
    why: str = ""
    overview: tuple[Figure, ...] = ()
    findings: tuple[tuple[str, str], ...] = ()
    no_excerpt: str = ""
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
        null_dirs: Its null runs, see ``study.study``.
        variant_dirs: Runs that differ from it in their decoder alone.

    Raises:
        MissingError: A run is not there or not finished.
        ConfigError: A null or a variant is not comparable, or matplotlib is not installed.
        DataError: A run is damaged.
    """
    files.require_library()
    try:
        studied = study.study(run_dir, null_dirs)
    except errors.ConfigError as error:
        if null_dirs or variant_dirs:  # what is asked for is not left out in silence
            raise
        return _without_study(run_dir, printable.line(f"{error.message}: {error.hint}"))
    run_facts = facts.gather(run_dir, studied.run)
    excerpts = _excerpts(run_dir, variant_dirs)
    others = decoders.studies(studied, variant_dirs)
    compared = decoders.figures(studied, others) if others else []
    return Content(
        facts=run_facts,
        nulls=tuple(facts.gather(null.path, null) for null in studied.nulls),
        others=tuple(facts.gather(other.run.path, other.run) for other in others),
        primaries=tuple(primaries.lines(studied)),
        summary=drawn(primaries.figures(studied), "summary"),
        findings=tuple(verdicts.findings(studied.results, studied.run, studied.verdicts)),
        excerpt=excerpts,
        no_excerpt="" if excerpts else _no_excerpt(run_dir),
        sections=_sections(studied),
        variants=tuple(decoders.compared(studied, others)) if others else (),
        decoders=drawn(compared, "variants"),
        missing=tuple(commands.missing_nulls(studied.run, studied.nulls, run_facts.settings)),
    )


def _without_study(run_dir: str | Path, why: str) -> Content:
    """A run without what the study needs still has its totals."""
    with reader.open_run(run_dir) as run:
        overview = drawn(totals.figures(run), "totals")
        findings = tuple(("Q0", sentence) for sentence in totals.findings(run))
    excerpts = _excerpts(run_dir, ())
    return Content(
        facts=facts.gather(run_dir),
        why=why,
        overview=overview,
        findings=findings,
        excerpt=excerpts,
        no_excerpt="" if excerpts else _no_excerpt(run_dir),
    )


def _excerpts(run_dir: str | Path, variant_dirs: Sequence[str | Path]) -> tuple[Figure, ...]:
    """The same tokens through every decoder that has rows of them."""
    return tuple(shown for folder in (run_dir, *variant_dirs) for shown in _excerpt(folder))


def _no_excerpt(run_dir: str | Path) -> str:
    with reader.open_run(run_dir) as run:
        try:
            return excerpt.lacking(run) or (
                f"no document has {excerpt.TOKENS} tokens" if excerpt.place(run) is None else ""
            )
        except errors.MissingError:
            return "the run was passed on without its tokens"


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
            title=f"A passage of the text, decoder {shown.decoders[0]}",
            caption=f"\u201c{excerpt.text(shown)}\u201d: at each layer the best token and the "
            "rank of the model's final prediction, the divergence from the output, the rank of the "
            "input token, and the divergence from the input.",
            basis="Values of single tokens, without intervals. Colours that contrast more with the "
            "page mean smaller ranks and divergences; ★: the model's final prediction is the true "
            "next token.",
            svg=excerpt.svg(shown),
            dark=excerpt.svg(shown, palette.DARK),
            tables=excerpt.tables(shown),
        ),
    )


def _sections(studied: study.Study) -> tuple[Section, ...]:
    source = series.Source(studied)
    questions: dict[str, tuple[str, Figures]] = dict(QUESTIONS)
    if studied.run.corpus in designs.BINNED:
        questions = dict(OF_TWINS)
    return tuple(
        Section(
            name=question,
            title=title,
            verdict=studied.verdicts.get(question, ""),
            figures=drawn(figures(source), question),
            lines=tuple(
                line
                for line in studied.results
                if (line.question, line.run) == (question, studied.run.label) and line.layer is None
            ),
        )
        for question, (title, figures) in questions.items()
    )


def drawn(plotted: Sequence[plots.Plot], section: str) -> tuple[Figure, ...]:
    """Figures drawn, each with its numbers.

    Args:
        plotted: Figures.
        section: What their names begin with.
    """
    return tuple(
        Figure(
            name=f"{section}-{plot.name}",
            title=plot.title,
            caption=plot.caption,
            basis=plot.basis,
            svg="" if plot.empty else drawing.svg(plot),
            dark=drawing.svg(plot, palette.DARK) if plot.has_heat and not plot.empty else "",
            tables=tuple((panel.title, *panel.table()) for panel in plot.panels),
            lacking=plot.lacking,
        )
        for plot in plotted
    )
