"""What ``jaxlens study`` prints: primaries, strata and verdicts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.cli import streams, terminal

if TYPE_CHECKING:
    from pathlib import Path

    from jaxlens.study import study, table
    from jaxlens.study.checkpoints.study_checkpoints import Checkpoints, Line


NO_UNTRAINED = (
    "No untrained model was given beside this one, which may show the same: make one with jaxlens "
    "run --null random-init, and pass it with --null."
)


def show_study(result: study.Study, files: Sequence[Path]) -> None:
    """Prints the primaries, the verdicts and where the table is."""
    from jaxlens.study import inputs

    primaries = sorted((r for r in result.results if r.primary), key=lambda line: line.question)
    cells = [("primary", "estimate", "95 % interval", "p (Holm)", "judgement")]
    cells += [_primary(line) for line in primaries]
    if primaries:
        streams.say(terminal.aligned(cells))
    if result.strata:
        heading = (
            "within a stratum",
            "estimate",
            "95 % interval",
            "p (BH)",
            "judgement",
            "stratum",
        )
        strata = [(*_primary(line), terminal.printable(line.stratum)) for line in result.strata]
        streams.say("\n" + terminal.aligned([heading, *strata]) + "\n")
    for question, verdict in result.verdicts.items():
        streams.say(
            textwrap.fill(
                terminal.printable(f"{question}. {verdict}"), 96, subsequent_indent="    "
            )
        )
    if not any(null.kind == inputs.RANDOM_INIT for null in result.nulls):
        streams.say(textwrap.fill(NO_UNTRAINED, 96))
    lines = errors.count(len(result.results), "line")
    terminal.say(f"{lines}: {', '.join(str(path) for path in files)}")


def _primary(line: table.Result) -> tuple[str, str, str, str, str]:
    """Name, estimate, interval, p-value and judgement; a dash where there is none."""
    from jaxlens.study import readings

    known = not math.isnan(line.low)
    return (
        f"{line.question} {line.estimator}",
        terminal.cell(line.estimate, "{:.3g}"),
        f"[{line.low:.3g}, {line.high:.3g}]" if known else "-",
        readings.format_p(line.p_adjusted, "-"),
        line.judgement if known else readings.judgement(line),
    )


def show_checkpoints(result: Checkpoints, files: Sequence[Path]) -> None:
    """Prints a table of each primary over the checkpoints, and where the files are."""
    from jaxlens.study.checkpoints import study_checkpoints

    heading = ("checkpoint", "estimate", "95 % interval", "n", "clusters", "judgement")
    for name, lines in result.primaries.items():
        terminal.say(f"{lines[0].question} {name} ({lines[0].unit})")
        streams.say(terminal.aligned([heading, *map(_checkpoint, lines)]))
        for reason, labels in study_checkpoints.reasons(lines).items():
            terminal.say(f"no interval: {reason or 'no reason is known'} ({', '.join(labels)})")
        streams.say("")
    for note in result.notes:
        streams.say(textwrap.fill(terminal.printable(note), 96))
    lines = errors.count(len(result.lines), "line")
    terminal.say(f"{lines}: {', '.join(str(path) for path in files)}")


def _checkpoint(line: Line) -> tuple[str, ...]:
    estimate, interval, judgement = (_primary(line)[i] for i in (1, 2, 4))
    size = f"{line.n:,}", f"{line.clusters:,}"
    return terminal.printable(line.label), estimate, interval, *size, judgement
