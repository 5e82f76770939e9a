"""The standard streams of a command, which never decide how finished work ends.

What a command prints about its work (`say`) may be lost: the reader may be gone, the disk full, the
encoding without a sign. What it was asked to print (a grid, JSON) is written as usual, and fails as
any output does; only the encoding never matters.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import sys
import typing

logger = logging.getLogger("jaxlens")

_ERRORS = "jaxlens"
# One character each, so that columns stay aligned.
_INSTEAD = {
    **{"·": ".", "…": "~", "★": "*", "–": "-", "−": "-", "×": "x", "±": "~"},
    **{"‖": "|", "∣": "|", "↵": "$", "⇥": ">", "←": "<", "→": ">", "≥": ">", "≤": "<"},
    **{"α": "a", "γ": "g", "ρ": "r", "σ": "s", "ω": "w", "²": "2", "◀": "<", "▶": ">"},
}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_INSTEAD.get(character, "?") for character in missing), error.end


codecs.register_error(_ERRORS, _replaced)


def prepare() -> None:
    """Makes the standard streams usable: none is closed, and every character has a stand-in.

    A descriptor that the caller has closed would be given to the next file that is opened.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=_ERRORS)


def say(text: str, always: bool = False) -> None:
    """Prints about work that is done; a failure to print is no failure of the work.

    Args:
        text: Lines.
        always: Whether to print it also where the command is quiet.
    """
    if not always and not logger.isEnabledFor(logging.WARNING):
        return
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        _abandon(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # as in `| head`: the reader has seen enough
            why = getattr(error, "strerror", None) or str(error)
            logger.warning("standard output cannot be written: %s; the work itself is done", why)


def complain(text: str) -> None:
    """Prints to standard error, where that is possible."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")  # at once: an interrupt may come between two calls
        sys.stderr.flush()


def end_line() -> None:
    """Begins a new line on a terminal, which has shown ``^C`` in the middle of one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            complain("")


def flush() -> None:
    """Flushes both streams; what cannot be written is dropped, or Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _abandon(stream)


def _abandon(stream: typing.TextIO) -> None:
    """Sends a stream nowhere from now on."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
