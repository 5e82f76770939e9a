"""Temporary files beside their targets: their names, and which of them are left over."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Generator
from pathlib import Path

from jaxlens.files import system

STALE_SECONDS = 24 * 3600.0
"""Age at which a temporary file is left over, whoever wrote it."""

_NAME = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.tmp")

_live: set[str] = set()


def name_for(target: str) -> str:
    """A new name in the folder of a target; it tells the machine and the process of its writer."""
    directory, name = os.path.split(target)
    unique = f"{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return os.path.join(directory, f".{name}.{unique}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `name_for` gives."""
    return _NAME.fullmatch(name) is not None


@contextlib.contextmanager
def removed_on_error(path: str, disk: system.Disk) -> Generator[None]:
    """Removes a temporary file where the block fails; `remove_leftovers` spares it meanwhile."""
    _live.add(os.path.basename(path))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(path)
        raise
    finally:
        _live.discard(os.path.basename(path))


def remove_leftovers(directory: str | Path, disk: system.Disk = system.DISK) -> int:
    """Removes temporary files whose writers are dead; returns how many.

    Whether a writer on another machine is alive cannot be known, so its files go when they are a
    day old. Should they go too early, the writer's rename fails and it writes them again.
    """
    removed = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
                if match is not None and _is_stale(entry, match[1], int(match[2])):
                    disk.unlink(entry.path)
                    removed += 1
    return removed


@functools.cache
def _machine() -> str:
    """Names the space in which a process id is unique: host and pid namespace."""
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
            pass  # another process has that id now; the age decides
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS
