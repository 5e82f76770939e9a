"""Text on the terminal: log lines, tables, errors. Data goes to stdout, the rest to stderr."""

from __future__ import annotations

import json
import logging
import math
import unicodedata
from collections.abc import Sequence

from jaxlens import errors, interrupts
from jaxlens.cli import streams

logger = logging.getLogger("jaxlens")

_RESUMED = ("run", "repair", "tokenize", "probe", "ablate")
"""Commands that go on where they were interrupted."""


class _Lines(logging.Formatter):
    """Messages name files, whose names may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(record.getMessage())


class _ToStderr(logging.Handler):
    """Looks up standard error at each line: while a bar is drawn, lines appear above it."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.complain(self.format(record))


class JsonLines(logging.Formatter):
    """Messages as JSON, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        entry = {"level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(entry)


def start_logging(quiet: bool, verbose: bool, log_format: str) -> None:
    """Log lines to stderr, as text or as JSON."""
    handler = _ToStderr()
    handler.setFormatter(JsonLines() if log_format == "json" else _Lines())
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
    """Prints a line about finished work, see `streams.say`; names of files may hold anything."""
    streams.say(printable(text), always)


def printable(text: str) -> str:
    """One line without control or bidirectional characters, which could forge a terminal."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else " " for c in text)


def print_json(document: object) -> None:
    """Data on stdout."""
    print(json.dumps(document, allow_nan=False))


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
