"""The progress bar of a command."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from jaxlens import errors
from jaxlens.cli import terminal

logger = logging.getLogger("jaxlens")


class Bar:
    """A bar with tokens, tokens a second and the time left; silent off a terminal.

    It moves with every step; the number beside it counts what is recorded.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, total: int, done: int) -> None:
        """Starts at ``done`` of ``total`` tokens."""
        if done:
            logger.info("resuming: %s of %s are done", f"{done:,}", errors.count(total, "token"))
        as_json = any(
            isinstance(handler.formatter, terminal.JsonLines) for handler in logger.handlers
        )
        if as_json or not sys.stderr.isatty() or logger.level > logging.INFO:
            return
        from rich import console, progress

        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.TextColumn("{task.fields[recorded]:,.0f} of {task.total:,.0f} tokens"),
            progress.TextColumn("{task.fields[rate]} tok/s"),
            progress.TimeRemainingColumn(),
            console=console.Console(file=sys.stderr),
            transient=True,
        )
        with _optional():
            self._bar.start()
            self._bar.add_task("sweep", total=total, completed=done, recorded=done, rate="-")

    def computed(self, count: int) -> None:
        """``count`` more tokens are computed: the bar moves, and with it the rate."""
        if self._bar is None:
            return
        with _optional():
            (task,) = self._bar.tasks
            rate = f"{task.speed:,.0f}" if task.speed else "-"
            self._bar.update(task.id, advance=count, rate=rate)

    def advance(self, count: int) -> None:
        """``count`` more tokens are recorded: the number moves; the bar too, if it is behind."""
        if self._bar is None:
            return
        with _optional():
            (task,) = self._bar.tasks
            recorded = task.fields["recorded"] + count
            ahead = max(recorded, task.completed)
            self._bar.update(task.id, recorded=recorded, completed=ahead)

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
