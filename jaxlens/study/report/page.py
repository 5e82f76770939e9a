"""The report: one file that loads nothing and runs nothing.

Text of strangers, such as names of files in notes of the environment, is escaped by the template;
figures are images whose addresses hold them, and the policy of the page allows no script at all.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from jaxlens.files import contained, fetching, outputs
from jaxlens.study import readings, table
from jaxlens.study.report import content
from jaxlens.view import pages, printable
from jaxlens.view.figures import plots, svg

NAME = "report.html"
"""Where it goes in a run's folder."""

_PACKAGE = "jaxlens.study.report"


def write(
    run_dir: str | Path,
    null_dirs: Sequence[str | Path] = (),
    variant_dirs: Sequence[str | Path] = (),
    *,
    out: Path | None = None,
    figures: Path | None = None,
) -> list[Path]:
    """Writes the report of a run.

    Args:
        run_dir: See ``content.gather``.
        null_dirs: See ``content.gather``.
        variant_dirs: See ``content.gather``.
        out: File; ``report.html`` in the run's folder by default.
        figures: Folder to which the figures are written too, as SVG.

    Returns:
        The files.

    Raises:
        JaxlensError: See ``content.gather``.
        ConfigError: jinja2 is not installed.
        StorageError: A file cannot be written.
    """
    target = contained.contained(run_dir, NAME) if out is None else out
    report = content.gather(run_dir, null_dirs, variant_dirs)
    how = command("report", run_dir, null_dirs, variant_dirs)
    data = page(report, how, command("study", run_dir, null_dirs)).encode()
    outputs.write(target, data, own=out is None)
    written = [target]
    if figures is not None:
        drawn = {f"{shown.name}.svg": shown.svg for shown in report.figures if shown.svg}
        named = {name: svg.on_white(picture).encode() for name, picture in drawn.items()}
        written += outputs.write_all(figures, named)
    return written


def page(report: content.Content, how: str, tables: str = "") -> str:
    """The report as text of HTML.

    Args:
        report: What it holds.
        how: The command that makes it.
        tables: The command that writes its numbers as a table; left out where there is no study.
    """
    return pages.page(
        "report.html",
        title=f"{report.facts.name} · logit lens report",
        styles=[pages.asset("report.css", _PACKAGE)],
        package=_PACKAGE,
        report=report,
        facts=report.facts,
        beside=[
            (f"{other.name}, {what}", other.apart_from(report.facts), other.commands)
            for what, others in (("a null run", report.nulls), ("a variant", report.others))
            for other in others
        ],
        how=how,
        table="" if report.why else tables,
        format_number=plots.format_number,
        format_p=readings.format_p,
        direction=_direction,
        judgement=readings.judgement,
    )


def _direction(line: table.Result) -> str:
    return readings.direction(line) if math.isfinite(line.estimate) else ""


def command(
    name: str,
    run_dir: str | Path,
    null_dirs: Sequence[str | Path] = (),
    variant_dirs: Sequence[str | Path] = (),
) -> str:
    """The command that makes a report or a table, in the words of a shell."""
    words = ["jaxlens", name, fetching.name_of(run_dir)]
    for option, folders in (("--null", null_dirs), ("--variant", variant_dirs)):
        if folders:
            words += [option, *map(fetching.name_of, folders)]
    return printable.line(shlex.join(words))
