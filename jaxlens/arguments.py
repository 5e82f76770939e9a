"""What the commands share: their common options, their configuration, and how they fail."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter

from jaxlens import config as configs
from jaxlens import errors, memory, terminal


@dataclass(frozen=True)
class Output:
    """What is printed."""

    quiet: bool = False
    """Only warnings and errors."""
    verbose: Annotated[bool, Parameter(alias="-v")] = False
    """Details too."""
    log_format: Literal["text", "json"] = "text"
    """Form of the log lines on stderr."""
    debug: bool = False
    """Traceback where an error ends the program."""


Shown = Annotated[Output, Parameter(name="*")]
Files = Annotated[tuple[Path, ...], Parameter(name=["--config", "-c"], consume_multiple=False)]
Paths = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)]
Words = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=False)]


def report(error: Exception, debug: bool) -> int:
    """Prints an error and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, CycloptsError):
        usage = str(error) or type(error).__name__
        error = errors.ConfigError(" ".join(usage.split()), "run jaxlens --help")
    elif memory.is_shortage(error):
        error = errors.ConfigError("out of memory", memory.HINT)
    elif isinstance(error, OSError):
        error = errors.StorageError(str(error), "check the disk and the permissions")
    elif not isinstance(error, errors.JaxlensError):
        what = f"internal: {type(error).__name__}: {error}".split("\n")[0]
        error = errors.JaxlensError(what, "run it again with --debug and report the traceback")
    terminal.show_error(error)
    return error.exit_code


def begin(output: Output) -> None:
    """Starts the log as it was asked for."""
    terminal.start_logging(output.quiet, output.verbose, output.log_format)


def load(
    files: Sequence[Path], flags: Mapping[str, Any], settings: Sequence[str]
) -> configs.RunConfig:
    """The configuration of a command: files, environment, its own flags, ``--set``.

    Args:
        files: YAML files.
        flags: Dotted keys to what flags of the command say; None where they were not given.
        settings: ``key=value`` assignments.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    return configs.load(files, os.environ, given | _assignments(settings))


def _assignments(settings: Sequence[str]) -> dict[str, Any]:
    pairs = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise errors.ConfigError(f"--set {setting}", "write --set key=value")
        pairs[key] = configs.parse(key, text)
    return pairs


def part(text: str | None) -> tuple[int, int | None]:
    """Start and end of ``FIRST:END``, either of which may be left out.

    Raises:
        ConfigError: It is no such thing.
    """
    first, colon, end = (text or ":").partition(":")
    try:
        if not colon:
            raise ValueError
        return int(first or 0), int(end) if end else None
    except ValueError:
        raise errors.ConfigError(f"tokens {text}", "write FIRST:END, for instance 0:32") from None


def layers(words: Sequence[str] | None) -> list[int | str] | None:
    """Layers as they are typed: numbers, or names."""
    if words is None:
        return None
    return [int(word) if word.lstrip("-").isdecimal() else word for word in words]
