"""Reading files of a run directory that nobody vouches for: contained, regular, bounded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Generator
from pathlib import Path

from jaxlens import errors
from jaxlens.files import memory

BLOCK_BYTES = 1 << 20
"""Bytes that are read and hashed at once."""

_AGAIN = "run the same command again; it recomputes what is missing or damaged"


def contained(run_dir: str | Path, *parts: str) -> Path:
    """A path inside a run directory.

    Raises:
        DataError: A link leads out of the directory.
    """
    root = Path(run_dir).resolve()
    path = root.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(root):
        raise errors.DataError(f"{path.parent} leads out of {root}", "remove the link")
    return path


@contextlib.contextmanager
def opened(path: Path) -> Generator[int]:
    """A descriptor of a regular file; links are not followed, and pipes do not block.

    Raises:
        MissingError: It is not there.
        DataError: It is not a regular file.
        StorageError: The system refused.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path, limit: int) -> bytes:
    """All bytes of a small file.

    Raises:
        DataError: It has more than ``limit`` bytes.
        JaxlensError: See `opened`.
    """
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise errors.DataError(f"{path} has {size} bytes, at most {limit} make sense", _AGAIN)
        with refusals(path), os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)


def size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        JaxlensError: See `opened`.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise _refusal(path, error) from error
    _require_regular(path, status.st_mode)
    return status.st_size


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):  # which nothing replaces
        raise errors.DataError(f"{path} is a directory: remove it", "then run the command again")
    if not stat.S_ISREG(mode):
        raise errors.DataError(f"{path} is not a regular file", _AGAIN)


def names(folder: Path) -> list[str]:
    """Sorted names in a directory; none where there is no directory.

    Raises:
        StorageError: The system refused.
    """
    with refusals(folder), contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def sha256(path: Path, descriptor: int, size: int | None = None) -> str:
    """Hash of an open file, or of its first ``size`` bytes, in hexadecimal.

    Raises:
        StorageError: The system refused to read.
    """
    digest, at = hashlib.sha256(), 0
    end = os.fstat(descriptor).st_size if size is None else size
    with refusals(path):
        while block := os.pread(descriptor, min(BLOCK_BYTES, end - at), at):
            digest.update(block)
            at += len(block)
    return digest.hexdigest()


@contextlib.contextmanager
def refusals(path: Path) -> Generator[None]:
    """Turns an ``OSError`` into what the user sees."""
    try:
        yield
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> errors.JaxlensError:
    memory.reraise(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return errors.MissingError(f"{path} is missing", _AGAIN)
    if error.errno == errno.EIO:  # a bad sector: what is there is damaged, and can be replaced
        return errors.DataError(f"{path} cannot be read: {error.strerror}", _AGAIN)
    if error.errno == errno.ELOOP:
        return errors.DataError(f"{path} is a link", "put the file itself there")
    return errors.StorageError(f"cannot read {path}: {error.strerror}", "check the disk")
