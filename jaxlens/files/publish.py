"""Durable writing: a file exists whole and synced, or not at all.

Data go to a temporary file beside the target, which is synced and renamed over it; then the
directory is synced. Every system call that decides durability goes through a `system.Disk`, so
that tests can make each of them fail.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from jaxlens import errors
from jaxlens.files import refusals, system, temporary

Bytes = bytes | bytearray | memoryview

TRIES = 3
"""Attempts to write a file."""


_FATAL = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    }
)


def publish(
    path: str | Path,
    data: Bytes,
    disk: system.Disk = system.DISK,
    replace: bool = True,
    before: Callable[[], object] = lambda: None,
) -> bool:
    """Creates or replaces a file, atomically and durably.

    After a failed write or fsync the kernel may have dropped the pages and marked them clean, so
    the same descriptor is never tried again: the file is written anew from RAM.

    Args:
        path: Target, in a directory that exists.
        data: All of its bytes.
        disk: System calls.
        replace: Whether a file of that name is replaced; if not, it stays, and of several writers
            the first one wins.
        before: Called when the bytes are durable and do not have their name yet.

    Returns:
        Whether the file is now the one written here.

    Raises:
        StorageError: Less than twice the size of ``data`` is free (then nothing is written), the
            disk failed `TRIES` times, or writing is not allowed.
    """
    view = memoryview(data).cast("B")
    with refusals.writing(path):
        check_space(Path(path), 2 * view.nbytes, disk)
        attempt = 1
        while True:
            try:
                return _write_whole(os.fspath(path), view, disk, replace, before)
            except OSError as error:
                if error.errno in _FATAL or attempt == TRIES:
                    raise
            attempt += 1


def publish_all(named: Mapping[Path, Bytes], disk: system.Disk = system.DISK) -> None:
    """Creates or replaces files of one directory that belong together.

    No file is replaced before all of them are written and synced, so a disk that is full leaves
    those from before. A crash between two renames can leave some of each; the next call mends it.

    Args:
        named: All bytes of each file, by path.
        disk: System calls.

    Raises:
        StorageError: Less than twice the size of all is free, or the disk refused.
    """
    total = sum(memoryview(data).nbytes for data in named.values())
    with contextlib.ExitStack() as drafts:
        written = []
        for path, data in named.items():
            with refusals.writing(path):
                if not written:
                    check_space(path, 2 * total, disk)
                draft = temporary.name_for(os.fspath(path))
                drafts.enter_context(temporary.removed_on_error(draft, disk))
                _write_draft(disk, draft, memoryview(data).cast("B"))
                written.append((draft, path))
        for draft, path in written:
            with refusals.writing(path):
                disk.rename(draft, os.fspath(path))
    for folder in {path.parent for path in named}:
        with refusals.writing(folder):
            disk.fsync_directory(os.fspath(folder))


class Stream:
    """A file under way, hashed as it is written.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self, path: str | Path, descriptor: int, disk: system.Disk) -> None:
        self.size = 0
        self._path = path
        self._descriptor = descriptor
        self._disk = disk
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the bytes so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: Bytes) -> None:
        """Appends bytes.

        Raises:
            StorageError: The system refused; the file will not appear.
        """
        view = memoryview(data).cast("B")
        with refusals.writing(self._path):
            _write_all(self._disk, self._descriptor, view)
        self._hash.update(view)
        self.size += view.nbytes


@contextlib.contextmanager
def stream(
    path: str | Path, disk: system.Disk = system.DISK, replace: bool = True
) -> Generator[Stream]:
    """Publishes a file too large for RAM, written in order; see `file_descriptor`."""
    with file_descriptor(path, disk, replace) as descriptor:
        yield Stream(path, descriptor, disk)


@contextlib.contextmanager
def file_descriptor(
    path: str | Path, disk: system.Disk = system.DISK, replace: bool = True
) -> Generator[int]:
    """The descriptor of a file that appears when the block ends without an exception.

    No copy of the bytes is kept, so the first failed fsync is final.

    Args:
        path: Target, in a directory that exists.
        disk: System calls.
        replace: Whether a file of that name is replaced; if not, it stays.

    Raises:
        StorageError: The system refused.
        ConfigError: A file of that name exists and may not be replaced.
    """
    target = os.fspath(path)
    draft = temporary.name_for(target)
    with temporary.removed_on_error(draft, disk):
        with refusals.writing(path):
            descriptor = disk.open_exclusive(draft)
        with _closed(descriptor, disk):
            yield descriptor
            with refusals.writing(path):
                disk.fsync(descriptor)
        with refusals.writing(path):
            named = _give_name(disk, draft, target, replace)
    with refusals.writing(path):
        disk.fsync_directory(os.path.dirname(target) or ".")
    if not named:
        raise errors.ConfigError(f"{path} exists", "remove it, or write to another path")


def make_directory(path: str | Path, disk: system.Disk = system.DISK) -> None:
    """Creates a directory and its parents, durably; does nothing if it exists.

    Raises:
        StorageError: The system refused, or a file has that name.
    """
    path = Path(path)
    with refusals.writing(path):
        if path.is_dir():
            return
        if path.is_symlink() and not path.exists():
            raise errors.StorageError(
                f"cannot write {path}: its link to {os.readlink(path)} leads nowhere",
                "create that directory or remove the link, then run the same command again",
            )
        make_directory(path.parent, disk)
        with contextlib.suppress(FileExistsError):
            disk.make_directory(os.fspath(path))
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        disk.fsync_directory(os.fspath(path.parent))


def remove(path: str | Path, disk: system.Disk = system.DISK) -> None:
    """Removes a file if it exists, durably.

    Raises:
        StorageError: The system refused.
    """
    with refusals.writing(path), contextlib.suppress(FileNotFoundError):
        disk.unlink(os.fspath(path))
        disk.fsync_directory(os.path.dirname(path) or ".")


def check_space(path: Path, needed: int, disk: system.Disk = system.DISK) -> None:
    """Requires free space for a file.

    Raises:
        StorageError: Fewer than ``needed`` bytes are free.
    """
    with refusals.writing(path):
        free = disk.free_bytes(os.fspath(path.parent))
    if free is not None and free < needed:
        raise errors.StorageError(
            f"cannot write {path}: {needed} bytes must be free, {free} are",
            "free some space, then run the same command again",
        )


def _write_whole(
    target: str,
    view: memoryview,
    disk: system.Disk,
    replace: bool,
    before: Callable[[], object],
) -> bool:
    draft = temporary.name_for(target)
    with temporary.removed_on_error(draft, disk):
        _write_draft(disk, draft, view)
        before()
        first = _give_name(disk, draft, target, replace)
    # Also where another writer was first: its own sync may still be to come.
    disk.fsync_directory(os.path.dirname(target) or ".")
    return first


def _write_draft(disk: system.Disk, draft: str, view: memoryview) -> None:
    descriptor = disk.open_exclusive(draft)
    with _closed(descriptor, disk):
        _write_all(disk, descriptor, view)
        disk.fsync(descriptor)


def _give_name(disk: system.Disk, draft: str, target: str, replace: bool) -> bool:
    """Whether the target is now the draft."""
    if replace:
        disk.rename(draft, target)
        return True
    first = True
    try:
        disk.link(draft, target)
    except FileExistsError:
        first = False
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(draft)
    return first


def _write_all(disk: system.Disk, descriptor: int, view: memoryview) -> None:
    while view.nbytes:
        written = disk.write(descriptor, view)
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]


@contextlib.contextmanager
def _closed(descriptor: int, disk: system.Disk) -> Generator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # fsync has reported what there was to report
            disk.close(descriptor)
