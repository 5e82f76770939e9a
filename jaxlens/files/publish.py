"""The only code that writes to disk: a file is there whole and durable, or not at all.

Data go to a temporary file beside the target, which is synced and renamed over it; then the
directory is synced. Every system call that matters for durability goes through a `system.Disk`, so
that a test can fail each of them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Generator
from pathlib import Path

from jaxlens import errors
from jaxlens.files import system

Bytes = bytes | bytearray | memoryview

TRIES = 3
"""Attempts before a disk that fails is given up."""

STALE_SECONDS = 24 * 3600.0
"""Age at which a temporary file counts as left over whoever wrote it."""

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
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.tmp")
_live: set[str] = set()


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
        replace: Whether a file of that name gives way; if not, it stays as it is, and of several
            writers the first one wins.
        before: Is called when the bytes are safe and do not have their name yet.

    Returns:
        Whether the file is now the one written here.

    Raises:
        StorageError: There is no space (before anything is written: less than twice the size of
            ``data`` is free), the disk failed `TRIES` times, or writing is not allowed.
    """
    view = memoryview(data).cast("B")
    with reported(path):
        check_space(Path(path), 2 * view.nbytes, disk)
        attempt = 1
        while True:
            try:
                return _write_whole(os.fspath(path), view, disk, replace, before)
            except OSError as error:
                if error.errno in _FATAL or attempt == TRIES:
                    raise
            attempt += 1


class Stream:
    """Bytes on their way into a file, hashed as they pass.

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
        with reported(self._path):
            _write_all(self._disk, self._descriptor, view)
        self._hash.update(view)
        self.size += view.nbytes


@contextlib.contextmanager
def stream(
    path: str | Path, disk: system.Disk = system.DISK, replace: bool = True
) -> Generator[Stream]:
    """Publishes a file too large for RAM, from its first byte to its last; see `under_way`."""
    with under_way(path, disk, replace) as descriptor:
        yield Stream(path, descriptor, disk)


@contextlib.contextmanager
def under_way(
    path: str | Path, disk: system.Disk = system.DISK, replace: bool = True
) -> Generator[int]:
    """A descriptor of a file that appears when the block ends without an exception.

    What was written is nowhere else, so the first failed fsync is final.

    Args:
        path: Target, in a directory that exists.
        disk: System calls.
        replace: Whether a file of that name gives way; if not, it stays as it is.

    Raises:
        StorageError: The system refused.
        ConfigError: A file of that name is there and may not give way.
    """
    target = os.fspath(path)
    temporary = _temporary_name(target)
    with _removed_on_error(temporary, disk):
        with reported(path):
            descriptor = disk.open_exclusive(temporary)
        with _closed(descriptor, disk):
            yield descriptor
            with reported(path):
                disk.fsync(descriptor)
        with reported(path):
            named = _give_name(disk, temporary, target, replace)
    with reported(path):
        disk.fsync_directory(os.path.dirname(target) or ".")
    if not named:
        raise errors.ConfigError(f"{path} exists", "remove it, or write to another path")


def make_directory(path: str | Path, disk: system.Disk = system.DISK) -> None:
    """Creates a directory and its parents, durably; one that exists is left alone.

    Raises:
        StorageError: The system refused, or something else has that name.
    """
    path = Path(path)
    with reported(path):
        if path.is_dir():
            return
        make_directory(path.parent, disk)
        with contextlib.suppress(FileExistsError):
            disk.make_directory(os.fspath(path))
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        disk.fsync_directory(os.fspath(path.parent))


def remove(path: str | Path, disk: system.Disk = system.DISK) -> None:
    """Removes a file if it is there, durably.

    Raises:
        StorageError: The system refused.
    """
    with reported(path), contextlib.suppress(FileNotFoundError):
        disk.unlink(os.fspath(path))
        disk.fsync_directory(os.path.dirname(path) or ".")


def remove_leftovers(directory: str | Path, disk: system.Disk = system.DISK) -> int:
    """Removes temporary files whose writers are dead; returns how many.

    A writer on another machine cannot be asked, so its files go when they are a day old. Should
    they go too early, the writer's rename fails and it writes them again.
    """
    removed = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
                if match is not None and _is_stale(entry, match[1], int(match[2])):
                    disk.unlink(entry.path)
                    removed += 1
    return removed


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `publish` gives to files under way."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def reported(path: str | Path) -> Generator[None]:
    """Turns an ``OSError`` into what the user sees."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        do = "free some space" if error.errno in _NO_SPACE else "check the disk and permissions"
        if os.path.isdir(path) and error.errno in (errno.EISDIR, errno.EPERM):  # EPERM of macOS
            reason, do = "a directory is in its place", "remove that directory"
        folder = os.path.dirname(path) or "."
        if error.errno == errno.ENOENT and not os.path.lexists(folder):
            do = f"create the folder {folder}"
        raise errors.StorageError(
            f"cannot write {path}: {reason}", f"{do}, then run the same command again"
        ) from error


def check_space(path: Path, needed: int, disk: system.Disk = system.DISK) -> None:
    """Refuses to write where so many bytes are not free.

    Raises:
        StorageError: They are not.
    """
    with reported(path):
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
    temporary = _temporary_name(target)
    with _removed_on_error(temporary, disk):
        descriptor = disk.open_exclusive(temporary)
        with _closed(descriptor, disk):
            _write_all(disk, descriptor, view)
            disk.fsync(descriptor)
        before()
        first = _give_name(disk, temporary, target, replace)
    # Also where another writer was first: its own sync may still be to come.
    disk.fsync_directory(os.path.dirname(target) or ".")
    return first


def _give_name(disk: system.Disk, temporary: str, target: str, replace: bool) -> bool:
    """Whether the target is now what the temporary file was."""
    if replace:
        disk.rename(temporary, target)
        return True
    first = True
    try:
        disk.link(temporary, target)
    except FileExistsError:
        first = False
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)
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


@contextlib.contextmanager
def _removed_on_error(temporary: str, disk: system.Disk) -> Generator[None]:
    _live.add(os.path.basename(temporary))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    finally:
        _live.discard(os.path.basename(temporary))


def _temporary_name(target: str) -> str:
    directory, name = os.path.split(target)
    unique = f"{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return os.path.join(directory, f".{name}.{unique}.tmp")


@functools.cache
def _machine() -> str:
    """Names the space in which a process id means something: host and pid namespace."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{zlib.crc32(f'{socket.gethostname()}:{namespace}'.encode()):08x}"


def _is_stale(entry: os.DirEntry[str], machine: str, pid: int) -> bool:
    if machine == _machine():
        if pid == os.getpid():  # a container restarts with the same process id
            return entry.name not in _live
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # somebody has that process id; the age decides
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS
