"""Reading untrusted files of a run directory: contained, regular, bounded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Generator
from pathlib import Path

from jaxlens import errors
from jaxlens.files import fetching, memory, refusals

BLOCK_BYTES = 1 << 20
"""Bytes that are read and hashed at once."""


def contained(run_dir: str | Path, *parts: str) -> Path:
    """A path inside a run directory.

    Raises:
        DataError: A link leads out of the directory.
    """
    root = Path(os.path.realpath(run_dir))
    path = root.joinpath(*parts)
    if not Path(os.path.realpath(path.parent)).is_relative_to(root):
        raise errors.DataError(f"{path.parent} leads out of {root}", "remove the link")
    return path


@contextlib.contextmanager
def opened(path: Path) -> Generator[int]:
    """A descriptor of a regular file; links are not followed, and pipes do not block.

    Raises:
        MissingError: It does not exist.
        DataError: It is not a regular file.
        StorageError: The system refused.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with fetching.held(path):
        with reading(path):
            descriptor = os.open(path, flags)
        try:
            require_regular(path, os.fstat(descriptor).st_mode)
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
        require_size(path, size, limit)
        with reading(path), os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)


def require_size(path: Path, size: int, limit: int) -> None:
    """Refuses a file that is larger than what a run writes.

    Raises:
        DataError: It has more than ``limit`` bytes.
    """
    if size > limit:
        raise errors.DataError(
            f"{path} has {size} bytes, at most {limit} make sense", errors.RECOMPUTE
        )


def size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        JaxlensError: See `opened`.
    """
    with reading(path):
        status = os.lstat(path)
    require_regular(path, status.st_mode)
    return status.st_size


def require_regular(path: Path, mode: int) -> None:
    """Refuses what is not a regular file.

    Args:
        path: For the error.
        mode: As in ``os.stat_result.st_mode``.

    Raises:
        DataError: It is a directory, a pipe, a device or a socket.
    """
    if stat.S_ISDIR(mode):  # which nothing replaces
        raise errors.DataError(f"{path} is a directory: remove it", "then run the command again")
    if not stat.S_ISREG(mode):
        raise errors.DataError(f"{path} is not a regular file", errors.RECOMPUTE)


def names(folder: Path) -> list[str]:
    """Sorted names in a directory; none where it does not exist.

    Raises:
        StorageError: The system refused.
    """
    with reading(folder), contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def sha256(path: Path, descriptor: int, size: int | None = None) -> str:
    """Hash of an open file, or of its first ``size`` bytes, in hexadecimal.

    Raises:
        StorageError: The system refused to read.
    """
    digest, at = hashlib.sha256(), 0
    end = os.fstat(descriptor).st_size if size is None else size
    with reading(path):
        while block := os.pread(descriptor, min(BLOCK_BYTES, end - at), at):
            digest.update(block)
            at += len(block)
    return digest.hexdigest()


def holds(path: Path, data: bytes) -> bool:
    """Whether a file has exactly these bytes."""
    try:
        return size(path) == len(data) and read(path, len(data)) == data
    except (errors.MissingError, errors.DataError):
        return False


@contextlib.contextmanager
def reading(path: Path) -> Generator[None]:
    """Turns an ``OSError`` into an error that names the file; links and bad sectors are damage."""
    try:
        yield
    except OSError as error:
        memory.reraise(error)
        if error.errno == errno.EIO:  # a bad sector: the file can be written anew
            raise errors.DataError(
                f"{path} cannot be read: {error.strerror}", errors.RECOMPUTE
            ) from error
        if error.errno == errno.ELOOP:
            if os.path.islink(path):
                raise errors.DataError(f"{path} is a link", "put the file itself there") from error
            raise errors.DataError(
                f"{path} leads through a symbolic link to itself", "remove the link"
            ) from error
        raise refusals.read_error(path, error, "check the disk", errors.RECOMPUTE) from error
