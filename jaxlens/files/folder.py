"""A directory of a run, held open: its files are opened by name, and no path is resolved twice."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jaxlens import errors
from jaxlens.files import closing, contained, fetching

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_AGAIN = "remove it, then run the same command again"


class Folder(closing.Closing):
    """An open directory; also a context manager.

    The descriptor stays with the directory that was checked, whatever its name leads to later.
    Reading a small file takes three system calls, its size one.

    Args:
        run_dir: Run.
        parts: Names of the directories down to this one.

    Raises:
        DataError: A link leads out of the run, or it is not a directory; below the first part,
            not a link to one either.
        MissingError: It does not exist.
        StorageError: The system refused.
    """

    def __init__(self, run_dir: str | Path, *parts: str) -> None:
        # The parent of a file in it: a link in place of the directory itself must stay inside too.
        self.path: Path = contained.contained(run_dir, *parts, "any").parent
        self._descriptor = -1
        inner = os.O_NOFOLLOW if len(parts) > 1 else 0
        with contained.reading(self.path):
            try:
                self._descriptor = os.open(self.path, _FOLDER | inner)
            except NotADirectoryError as error:  # a link too, where links are not followed
                if os.path.lexists(self.path):
                    raise errors.DataError(f"{self.path} is not a directory", _AGAIN) from error
                raise

    def close(self) -> None:
        """Closes the directory; safe to repeat."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Names in the directory, in no order.

        Raises:
            StorageError: The system refused.
        """
        with contained.reading(self.path):
            return os.listdir(self._descriptor)

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a small file; links are not followed, and pipes do not block.

        Raises:
            MissingError: It does not exist.
            DataError: It is not a regular file, or has more than ``limit`` bytes.
            StorageError: The system refused.
        """
        path = self.path / name
        with fetching.held(path):
            with contained.reading(path):
                descriptor = os.open(name, _FILE, dir_fd=self._descriptor)
            try:
                with contained.reading(path):
                    data = self._read(path, descriptor, limit)
            finally:
                os.close(descriptor)
        contained.require_size(path, len(data), limit)
        return data

    def size(self, name: str) -> int:
        """Bytes of a regular file.

        Raises:
            MissingError: It does not exist.
            DataError: It is not a regular file.
            StorageError: The system refused.
        """
        try:
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            with contained.reading(self.path / name):
                raise
        if not stat.S_ISREG(status.st_mode):
            contained.require_regular(self.path / name, status.st_mode)
        return status.st_size

    def _read(self, path: Path, descriptor: int, limit: int) -> bytes:
        """One call reads a small file; only where it is odd is there a second, to say how."""
        try:
            data = os.read(descriptor, limit + 1)
        except (IsADirectoryError, BlockingIOError):
            data = b""
        if not data:
            contained.require_regular(path, os.fstat(descriptor).st_mode)
        return data
