"""Temporary folders that do not pile up: what a killed process left is removed by the next one.

Each folder holds a file that its process keeps locked, and the system unlocks where that process
ends, however it ends. Folders of other users, or without such a file, are left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path

from jaxlens import interrupts

PREFIX = "jaxlens-"
LOCK = "in-use.lock"


@contextlib.contextmanager
def folder() -> Generator[Path]:
    """A new folder, which is removed in the end."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        with tempfile.TemporaryDirectory(prefix=PREFIX) as path:
            yield Path(path)
        return
    _remove_stale(Path(tempfile.gettempdir()))
    ends = contextlib.ExitStack()
    try:
        descriptor: int | None = None
        ends.callback(lambda: None if descriptor is None else os.close(descriptor))
        with interrupts.shielded():
            path = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        # Locked before it has its name, so that nobody finds it unlocked.
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(path / f"{LOCK}.new", flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.rename(path / f"{LOCK}.new", path / LOCK)
        yield path
    finally:
        with interrupts.shielded():
            ends.close()


def _remove_stale(parent: Path) -> None:
    """Removes folders of this user whose process has ended."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_ours(entry) and _is_stale(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        private = stat.S_IMODE(status.st_mode) == stat.S_IRWXU
        return stat.S_ISDIR(status.st_mode) and private and status.st_uid == os.geteuid()
    return False


def _is_stale(path: Path) -> bool:
    import fcntl

    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
