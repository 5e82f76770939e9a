"""A list of files of a run, each with what is wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path

from jaxlens import errors
from jaxlens.files import fetching


class Findings:
    """Collects what is wrong with the files of a run.

    Args:
        run_dir: Run.
        watch: Called with the name of each file before it is checked.

    Attributes:
        items: Names of files, relative to the run, and what is wrong with each.
    """

    def __init__(self, run_dir: str | Path, watch: Callable[[str], None] | None = None) -> None:
        self.run_dir = run_dir
        self.watch = watch
        self.items: list[tuple[str, str]] = []

    def add(self, name: str, problem: str) -> None:
        """Adds a problem of a file."""
        self.items.append((name, problem))

    @contextlib.contextmanager
    def checking(self, name: str) -> Generator[None]:
        """Turns an error of the block into a problem of the file."""
        if self.watch is not None:
            self.watch(name)
        try:
            yield
        except errors.JaxlensError as error:
            # A mirror has the name of what it stands for, but in messages that it has not met yet.
            message = fetching.in_name_of(self.run_dir, error.message)
            path = fetching.name_of(os.path.join(os.path.realpath(self.run_dir), name))
            self.add(name, message.replace(path + os.sep, "").replace(path, "").strip(" :,"))
