"""The exceptions that users see, each with a stable exit code (docs/troubleshooting.md)."""

from __future__ import annotations

import contextlib
import importlib
import reprlib
from collections.abc import Generator
from typing import Any

# A value that is shown in a message may have megabytes.
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel = 2
_SHOWN.maxstring = _SHOWN.maxlong = _SHOWN.maxother = 80


class JaxlensError(Exception):
    """Base of every error that is the user's to act on.

    Args:
        message: One line that says what is wrong and names the file, field or tensor.
        hint: One line that says what to do about it.

    Attributes:
        exit_code: Status that the command line exits with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


RECOMPUTE = "run the same jaxlens run again, or jaxlens repair: both recompute what is damaged"
"""The hint of damage in the files of a run."""


class ConfigError(JaxlensError):
    """The configuration or the call is wrong (exit 2)."""

    exit_code = 2


class DataError(JaxlensError):
    """Input or stored data is malformed or damaged (exit 65)."""

    exit_code = 65


class MissingError(JaxlensError):
    """A model, corpus, run or file is not there (exit 66)."""

    exit_code = 66


class NumericalError(JaxlensError):
    """A numerical self-check failed (exit 69)."""

    exit_code = 69


class StorageError(JaxlensError):
    """The operating system refused to read or write (exit 74)."""

    exit_code = 74


class InterruptedRun(JaxlensError):
    """The run was asked to stop; the same command resumes it (exit 75)."""

    exit_code = 75


class Panic(ValueError):
    """A library written in Rust panicked, which otherwise is no ``Exception``."""


@contextlib.contextmanager
def panics() -> Generator[None]:
    """Makes a panic of a library, which is no ``Exception``, a `Panic`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # cannot be imported
            raise
        raise Panic(f"it makes the library panic ({error})") from error


@contextlib.contextmanager
def hinted(hint: str) -> Generator[None]:
    """Gives each `DataError` of the block another hint: what helps depends on the file."""
    try:
        yield
    except DataError as error:
        raise type(error)(error.message, hint) from error


def require_package(name: str, extra: str, use: str) -> Any:
    """Imports a package that only some features need.

    Args:
        name: Module to import, for instance ``pyarrow.parquet``.
        extra: Extra of the distribution that brings the package.
        use: What needs it, in the plural, for the message.

    Returns:
        The module.

    Raises:
        MissingError: The package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"{use} need the package {name.partition('.')[0]}, which is not installed",
            f"in a clone of jaxlens: pip install '.[{extra}]'",
        ) from error


def show(value: Any) -> str:
    """A value for a message; it may have megabytes, or digits that Python refuses to print."""
    try:
        return _SHOWN.repr(value)
    except ValueError:
        return "a number of very many digits"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: ``1 token``, ``2,000 tokens``.

    Args:
        number: How many.
        noun: What one of them is called.
        plural: What several are called; the noun with an ``s`` by default.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
