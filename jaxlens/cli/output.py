"""What a person sees: log lines, progress, tables, errors. Data to stdout, the rest to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxlens import errors, interrupts
from jaxlens.cli import streams

if TYPE_CHECKING:
    from pathlib import Path

    from jaxlens.corpus import token_folder
    from jaxlens.export import order
    from jaxlens.store import verify
    from jaxlens.study import study, table
    from jaxlens.sweep import estimate, repair, run

logger = logging.getLogger("jaxlens")

_RESUMED = ("run", "repair", "tokenize")
"""Commands that go on where they were interrupted."""

LAYER_COLUMNS = (
    ("median rank of input", "median_rank_input", "{:,.1f}"),
    ("median rank of final", "median_rank_final", "{:,.1f}"),
    ("mean KL(final‖layer)", "mean_kl_final", "{:.3f}"),
    ("mean KL(input‖layer)", "mean_kl_input", "{:.3f}"),
    ("mean entropy", "mean_entropy", "{:.3f}"),
)


class _Lines(logging.Formatter):
    """Messages name files, whose names may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(record.getMessage())


class _ToStderr(logging.Handler):
    """Writes to what standard error is at the moment: while a bar is drawn, above it."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.complain(self.format(record))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(entry)


def start_logging(quiet: bool, verbose: bool, log_format: str) -> None:
    """Log lines to stderr, as text or as JSON."""
    handler = _ToStderr()
    handler.setFormatter(_JsonLines() if log_format == "json" else _Lines())
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


def show_error(error: errors.JaxlensError) -> None:
    """One line what, one line what to do."""
    streams.complain(f"error: {printable(error.message)}")
    hint = error.hint or "run jaxlens --help, or again with --debug for a traceback"
    streams.complain(f"hint: {printable(hint)}")


def show_interruption(error: KeyboardInterrupt, words: Sequence[str]) -> int:
    """Says by what a command was interrupted and what to do; returns the exit status.

    Args:
        error: What a signal raised.
        words: Of the command.
    """
    again = "to resume" if words and words[0] in _RESUMED else "again"
    hint = f"run the same command {again}"
    if isinstance(error, interrupts.Signalled) and error.name != "SIGINT":
        ended = errors.InterruptedRun(f"interrupted by {error.name}", hint)
        show_error(ended)
        return ended.exit_code
    streams.end_line()
    show_error(errors.JaxlensError("interrupted by Ctrl-C", hint))
    return 130


def say(text: str, always: bool = False) -> None:
    """Prints a line about finished work, see `stdio.say`; names of files may hold anything."""
    streams.say(printable(text), always)


def printable(text: str) -> str:
    """One line without control or bidirectional characters, which could forge a terminal."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else " " for c in text)


class Bar:
    """A bar with tokens, tokens a second and the time left; silent off a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, total: int, done: int) -> None:
        """Starts at ``done`` of ``total`` tokens."""
        if done:
            logger.info("resuming: %s of %s are done", f"{done:,}", errors.count(total, "token"))
        as_json = any(isinstance(handler.formatter, _JsonLines) for handler in logger.handlers)
        if as_json or not sys.stderr.isatty() or logger.level > logging.INFO:
            return
        from rich import console, progress

        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens"),
            progress.TextColumn("{task.fields[rate]} tok/s"),
            progress.TimeRemainingColumn(),
            console=console.Console(file=sys.stderr),
            transient=True,
        )
        with _optional():
            self._bar.start()
            self._bar.add_task("sweep", total=total, completed=done, rate="-")

    def advance(self, count: int) -> None:
        """More tokens are recorded."""
        if self._bar is None:
            return
        with _optional():
            (task,) = self._bar.tasks
            rate = f"{task.speed:,.0f}" if task.speed else "-"
            self._bar.update(task.id, advance=count, rate=rate)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with _optional():
                self._bar.stop()


@contextlib.contextmanager
def _optional() -> Iterator[None]:
    """What is drawn for a person may fail where the terminal has gone."""
    with contextlib.suppress(OSError, ValueError):
        yield


def show_result(result: run.Result) -> None:
    """The closing summary: what was done, one line a layer, and how to open it."""
    skipped = sum(result.skipped.values())
    if skipped:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result.skipped.items()))
        what = errors.count(skipped, "document or line", "documents or lines")
        where = f"{result.out}/tokens/TOKENS.json"
        logger.warning("skipped %s: %s; all of them: %s", what, why, where)
    tokens = errors.count(result.n_tokens, "token")
    if not result.finished:
        computed = errors.count(result.computed, "shard")
        say(f"{result.out}: computed {computed}; other workers' are missing yet")
        return
    if result.tokens_per_second is None:
        say(f"{result.out}: finished already, {tokens}")
    else:
        say(
            f"{result.out}: {tokens} in {errors.count(result.n_shards, 'shard')}, "
            f"{result.tokens_per_second:,.0f} tok/s, {result.fill:.0%} of the positions filled"
        )
    from jaxlens.store import reader

    with reader.open_run(result.out) as opened:
        summary, has_rows = opened.summary(), bool(opened.names)
    streams.say(layer_table(summary))
    if any(key.startswith("median_") for found in summary.values() for key in found):
        say("median ranks are interpolated in bins of 10 %: they need not be whole")
    say(f"totals: {result.out}/summary.h5")
    if has_rows:
        say(f"rows of each token: {result.out}/shards/*.h5")
        say(f"open them: jaxlens.open_run({result.out!r})['rank_input'][:10]")
        say(f"       or: xarray.open_dataset({result.out + '/shards/part-00000.h5'!r})")


def print_json(document: object) -> None:
    """Data on stdout."""
    print(json.dumps(document, allow_nan=False))


def show_study(found: study.Study, files: Sequence[Path]) -> None:
    """Prints the primaries, the verdicts and where the table is."""
    primaries = [line for line in found.results if line.primary]
    cells = [("primary", "estimate", "95 % interval", "p (Holm)", "judgement")]
    cells += [_primary(line) for line in primaries]
    if primaries:
        streams.say(aligned(cells))
    if found.strata:
        heading = (
            "within a stratum",
            "estimate",
            "95 % interval",
            "p (BH)",
            "judgement",
            "stratum",
        )
        strata = [(*_primary(line), printable(line.stratum)) for line in found.strata]
        streams.say("\n" + aligned([heading, *strata]) + "\n")
    for question, verdict in found.verdicts.items():
        streams.say(
            textwrap.fill(printable(f"{question}. {verdict}"), 96, subsequent_indent="    ")
        )
    lines = errors.count(len(found.results), "line")
    say(f"{lines}: {', '.join(str(path) for path in files)}")


def _primary(line: table.Result) -> tuple[str, str, str, str, str]:
    """Name, estimate, interval, p-value and judgement; a dash where there is none."""
    known = not math.isnan(line.low)
    return (
        f"{line.question} {line.estimator}",
        cell(line.estimate, "{:.3g}"),
        f"[{line.low:.3g}, {line.high:.3g}]" if known else "-",
        cell(line.p_adjusted, "{:.2g}"),
        line.judgement,
    )


def show_verification(report: verify.Report, run_dir: object) -> None:
    """One line a finding.

    Raises:
        DataError: There are findings.
        InterruptedRun: There are none, but the run is not finished.
    """
    for name, what in report.damaged:
        say(f"{name}: {what}", always=True)
    there = f"{report.shards - report.missing:,} of {errors.count(report.shards, 'shard')}"
    if not report.sound:
        count = errors.count(len(report.damaged), "finding")
        notes = all(name.startswith("environment/") for name, _ in report.damaged)
        going_on = "" if report.finished else f" in a run that is not finished ({there})"
        raise errors.DataError(
            f"{run_dir}: {count}{going_on}, the first in {report.damaged[0][0]}",
            "remove the notes that are named: no result depends on them"
            if notes
            else f"jaxlens repair {run_dir} recomputes what is damaged, and only that",
        )
    rows = errors.count(report.rows, "row")
    if not report.finished:
        raise errors.InterruptedRun(
            f"{run_dir}: not finished, {there} and {rows} are there; what is there is sound",
            "wait, or run the same jaxlens run command again: it goes on where it stopped",
        )
    say(f"{run_dir}: ok, {errors.count(report.shards, 'shard')}, {rows}")


def show_repair(done: repair.Repaired, run_dir: object) -> None:
    """What was wrong, what was done about it, and what is left.

    Raises:
        DataError: Something is left.
    """
    for name, what in done.found:
        say(f"{name}: {what}")
    if done.other_bits:
        logger.warning("recomputed with other bits than before: shards %s", list(done.other_bits))
    if done.left:
        name, what = done.left[0]
        one = len(done.left) == 1
        raise errors.DataError(
            f"{run_dir}: {errors.count(len(done.left), 'finding')} {'is' if one else 'are'} left, "
            f"the first: {name} {what}",
            "jaxlens verify names them; files that belong to no run are yours to remove",
        )
    recomputed = errors.count(len(done.recomputed), "shard")
    what = f"repaired, {recomputed} recomputed; ok" if done.found else "ok, nothing to repair"
    if not done.finished:
        what += "; the run is not finished: run the same jaxlens run command again"
    say(f"{run_dir}: {what}")


def show_exports(done: Sequence[order.Exported]) -> None:
    """One line a file."""
    for one in done:
        what = f"{errors.count(one.records, 'record')} of {errors.count(one.columns, 'column')}"
        say(f"{one.path}: {what}, {_bytes(one.size)}")


def show_tokens(found: token_folder.Ingested) -> None:
    """What a token file holds."""
    made = "made" if found.fresh else "found"
    tokens = errors.count(found.index.n_tokens, "token")
    documents = errors.count(found.index.n_documents, "document")
    say(f"{made} {found.directory}: {tokens}, {documents}")
    for reason, count in sorted(found.skipped.items()):
        streams.say(f"skipped {count:,}: {reason}")


def show_estimate(found: estimate.Estimate) -> None:
    """What a run would cost."""
    lines = {
        "run directory": found.out,
        "tokens (rows)": f"{found.tokens:,} in {errors.count(found.documents, 'document')}",
        "skipped": errors.count(found.skipped, "document or line", "documents or lines"),
        "shards": f"{found.shards:,}",
        "steps": f"{found.steps:,}, {found.fill:.0%} of the positions filled",
        "on disk": f"{_bytes(found.disk_bytes)} at most "
        f"({errors.count(found.row_bytes, 'byte')} a row)",
        "tallies": f"{_bytes(found.tally_bytes)} in memory for each device",
        "device memory": _bytes(found.device_bytes),
        "expected time": f"{found.compile_seconds:.0f} s to compile, then "
        f"{found.seconds:,.0f} s ({found.tokens / found.seconds:,.0f} tok/s)",
    }
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        say(f"{key:<{width}}  {value}")


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def layer_table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Medians and means, one line a layer."""
    keys = {key for statistics in summary.values() for key in statistics}
    columns = [(title, key, form) for title, key, form in LAYER_COLUMNS if key in keys]
    lines = [["layer", *(title for title, _, _ in columns)]]
    for name, statistics in summary.items():
        lines.append([name, *(cell(statistics[key], form) for _, key, form in columns)])
    return aligned(lines)


def cell(value: float, form: str) -> str:
    """A number in the given format; a dash for NaN."""
    return "-" if math.isnan(value) else form.format(value)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table of words, its columns aligned, the first to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = []
    for line in lines:
        first = line[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        rows.append(printable("  ".join([first, *rest])))
    return "\n".join(rows)


# Comparisons align their tables alike.
