"""What the commands share: their common options, their configuration, and how they fail."""

from __future__ import annotations

import os
import re
import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import (
    ConsumeMultipleError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.cli import terminal
from jaxlens.files import memory

_NO_STDIN = "- (standard input) is only read by jaxlens show"

STDIN = "\0"
"""Stands for a lone ``-`` among the words of a command; no process can be given this byte."""

GREEDY = (
    *(
        "--answer-column",
        "--arms",
        "--corpus",
        "--difference",
        "--follow",
        "--labels",
        "--layers",
        "--metadata",
    ),
    *("--null", "--over", "--quantities", "--token-counts", "--variant"),
)
"""Options that take all words up to the next option; of ``run``, ``--null`` takes one."""

_NUMBER = re.compile(r"-?\d{1,18}")


class NoRunError(errors.ConfigError):
    """A command was given no run directory; `report` names the option that may have taken it."""


def _no_stdin(kind: Any, value: Any) -> None:
    """Refuses standard input for whatever does not ask for it."""
    several = value if isinstance(value, tuple) else (value,)
    if any(str(one) == STDIN for one in several):
        raise ValueError(_NO_STDIN)


def _shown_default(value: Any) -> str | None:
    """A default as help shows it; what is false or absent unless it is given needs no word."""
    return None if value is None or value is False or value == () else str(value)


DEFAULTS = Parameter(negative=(), validator=_no_stdin, show_default=_shown_default)
"""Of every parameter."""


@dataclass(frozen=True)
class Output:
    """What is printed."""

    quiet: bool = False
    """Nothing but errors, and what the command is asked to print."""
    verbose: Annotated[bool, Parameter(alias="-v")] = False
    """Details too."""
    log_format: Literal["text", "json"] = "text"
    """Form of the log lines on stderr."""
    debug: bool = False
    """Traceback where an error ends the program."""


Shown = Annotated[Output, Parameter(name="*")]
Files = Annotated[tuple[Path, ...], Parameter(name=["--config", "-c"], consume_multiple=False)]
Paths = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=1)]
Words = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=1)]
Texts = Annotated[str, Parameter(validator=lambda kind, value: None)]
"""One of them may be standard input."""
Settings = Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=False)]


def positional_dash(words: Sequence[str]) -> list[str]:
    """The words, with a ``-`` among them made one that is not taken for an option."""
    end = words.index("--") if "--" in words else len(words)
    return [STDIN if word == "-" else word for word in words[:end]] + list(words[end:])


def report(error: BaseException, words: Sequence[str]) -> int:
    """Prints an error and returns the exit code.

    Args:
        error: What ended the command.
        words: Of the command.
    """
    memory.use_reserve()
    if "--debug" in words:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return terminal.show_interruption(error, words)
    if isinstance(error, CycloptsError):
        error = _usage(error, words)
    elif isinstance(error, NoRunError):
        error = _swallowed(words) or error
    elif memory.is_shortage(error):
        error = errors.ConfigError("out of memory", memory.HINT)
    elif isinstance(error, OSError):
        error = errors.StorageError(str(error), "check the disk and the permissions")
    elif not isinstance(error, errors.JaxlensError):
        what = f"internal: {type(error).__name__}: {error}".split("\n")[0]
        error = errors.JaxlensError(what, "run it again with --debug and report the traceback")
    terminal.show_error(error)
    return error.exit_code


def _usage(error: CycloptsError, words: Sequence[str]) -> errors.ConfigError:
    # The stand-in of a dash is spelled in two ways.
    told = str(error).replace(STDIN, "-").replace(repr(STDIN)[1:-1], "-") or type(error).__name__
    what = " ".join(told.split())
    if _NO_STDIN in what:
        return errors.ConfigError(
            re.sub(r'^Invalid value ".*?" for (\S+)\. ', r"\1: ", what),
            "save it to a file first, COMMAND > corpus.txt, and name that file",
        )
    if isinstance(error, ConsumeMultipleError) and error.keyword is not None:
        return errors.ConfigError(
            f"{error.keyword} without a value", "write what it takes after it, or leave it out"
        )
    if isinstance(error, MissingArgumentError) and error.keyword is None:
        taken = _swallowed(words)
        if taken is not None:
            return taken
    unused = (isinstance(error, UnusedCliTokensError) and error.unused_tokens) or [""]
    if "=" in unused[0] and not unused[0].startswith("-"):
        return errors.ConfigError(
            f"{unused[0]} belongs to no option", f"write --set before each: --set {unused[0]}"
        )
    known = isinstance(error, UnknownCommandError) or not words
    return errors.ConfigError(what, f"run jaxlens {'' if known else words[0] + ' '}--help")


def _swallowed(words: Sequence[str]) -> errors.ConfigError | None:
    """What is said where the last option of a command has taken the argument that it lacks."""
    options = [i for i, word in enumerate(words) if word.startswith("--")]
    if not options or words[options[-1]] not in GREEDY:
        return None
    values = words[options[-1] + 1 :]
    what, name = ("file", "FILE") if words[0] == "prompts" else ("run directory", "RUN_DIR")
    missing = values[-1] if len(values) > 1 else name
    rest = words[1:-1] if len(values) > 1 else words[1:]
    return swallowed(f"no {what}", words[options[-1]], [words[0], missing, *rest])


def swallowed(what: str, option: str, instead: Sequence[str]) -> errors.ConfigError:
    """An argument is missing after an option that takes every word behind it.

    Args:
        what: What is missing.
        option: Name of the option.
        instead: The same words, the argument first.
    """
    command = shlex.join(["jaxlens", *instead])
    return errors.ConfigError(
        f"{what}: {option} takes all words after it", f"write it first: {command}"
    )


def begin(output: Output) -> None:
    """Starts the log of a command."""
    terminal.start_logging(output.quiet, output.verbose, output.log_format)


def load(
    files: Sequence[Path], flags: Mapping[str, Any], settings: Sequence[str]
) -> run_config.RunConfig:
    """The configuration of a command: files, environment, its own flags, ``--set``.

    Args:
        files: YAML files.
        flags: Dotted keys to what flags of the command say; None where they were not given.
        settings: ``key=value`` assignments.
    """
    overrides = {key: value for key, value in flags.items() if value is not None}
    return run_config.load(files, os.environ, overrides | _assignments(settings))


def _assignments(settings: Sequence[str]) -> dict[str, Any]:
    pairs = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise errors.ConfigError(f"--set {setting}", "write --set key=value")
        pairs[key] = run_config.parse(key, text)
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
    return [int(word) if _NUMBER.fullmatch(word) else word for word in words]
