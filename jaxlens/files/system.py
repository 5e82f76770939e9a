"""The system calls that decide what survives a crash, in one place that tests can fail."""

from __future__ import annotations

import errno
import fcntl
import os


class Disk:
    """The durable system calls, and nothing else; tests inject faults by subclassing it."""

    def open_exclusive(self, path: str) -> int:
        """Creates a file that must not exist and returns its descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o644)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Writes a prefix of ``data`` and returns its length."""
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Writes a prefix of ``data`` at an offset and returns its length."""
        return os.pwrite(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        """Returns when the file's bytes are on stable storage."""
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is None:
            os.fsync(descriptor)
        else:  # on macOS fsync stops at the drive's cache
            fcntl.fcntl(descriptor, full)

    def close(self, descriptor: int) -> None:
        """Closes a descriptor of `open_exclusive`."""
        os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Replaces ``target`` by ``source``, atomically."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Gives a file a second name, which must not exist."""
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            # Not every file system has hard links; renaming then comes closest.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            os.rename(source, target)

    def unlink(self, path: str) -> None:
        """Removes a file."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Creates one directory."""
        os.mkdir(path)

    def fsync_directory(self, path: str) -> None:
        """Returns when the directory's entries are on stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems cannot sync a directory and say so.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int | None:
        """Bytes that a user may still write under a directory; None where it is not known."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize if status.f_blocks else None


DISK = Disk()
