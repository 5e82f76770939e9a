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


def show_study(result: study.Study, files: Sequence[Path]) -> None:
    """Prints the primaries, the verdicts and where the table is."""
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
