"""Converts errors of the operating system to errors of jaxlens, with a hint."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Generator
from pathlib import Path

from jaxlens import errors
from jaxlens.files import memory

READ_HINT = "check its permissions and the disk"
MISSING_HINT = "check the path, or where it links to"

_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def reading(
    name: str | Path, hint: str = READ_HINT, missing_hint: str = MISSING_HINT
) -> Generator[None]:
    """Turns an ``OSError`` of reading into an error that names the file; see `read_error`."""
    try:
        yield
    except OSError as error:
        raise read_error(name, error, hint, missing_hint) from error


def read_error(
    name: str | Path, error: OSError, hint: str = READ_HINT, missing_hint: str = MISSING_HINT
) -> errors.JaxlensError:
    """The error for a file that the system refused to read.

    Args:
        name: What to call the file.
        error: Of the system.
        hint: What to do where the file exists.
        missing_hint: What to do where it does not.

    Returns:
        A `errors.MissingError` where there is no such file, else a `errors.StorageError`.

    Raises:
        MemoryError: The system had too little memory.
    """
    memory.reraise(error)
    if error.errno in _NO_FILE:
        return errors.MissingError(f"{name} is missing", missing_hint)
    return errors.StorageError(f"cannot read {name}: {error.strerror or error}", hint)


@contextlib.contextmanager
def writing(path: str | Path) -> Generator[None]:
    """Turns an ``OSError`` of writing into a `errors.StorageError` that names the file."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "free some space" if error.errno in _NO_SPACE else "check the disk and permissions"
        if os.path.isdir(path) and error.errno in (errno.EISDIR, errno.EPERM):  # EPERM on macOS
            reason, hint = "a directory is in its place", "remove that directory"
        if error.errno == errno.ENOENT and not os.path.lexists(os.path.dirname(path) or "."):
            hint = create_folder_hint(path)
        raise errors.StorageError(
            f"cannot write {path}: {reason}", f"{hint}, then run the same command again"
        ) from error


def create_folder_hint(path: str | Path) -> str:
    """What to do where the folder of a file does not exist."""
    return f"create the folder: mkdir -p {shlex.quote(os.path.dirname(path) or '.')}"
