"""Hashes of large files that were computed before, so that a host reads each file once.

A hash stands for a file as long as its device, inode, size and times of change are the same; bits
that rot on the disk change none of these, and are for ``jaxlens verify`` to find.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Generator
from pathlib import Path

from jaxlens.files import contained

LARGE_BYTES = 64 << 20
"""Bytes from which a hash is remembered."""

SETTLED_SECONDS = 2.0
"""A file that changed so recently may change again within the resolution of its times."""

_HASH = re.compile(r"[0-9a-f]{64}")

_folder: Path | None = None


def enable(folder: Path | None) -> None:
    """Chooses where hashes are remembered from now on.

    Args:
        folder: A directory that only this user can write; None for nowhere.
    """
    global _folder
    _folder = folder


def sha256(path: Path, descriptor: int) -> str:
    """Hash of an open file, in hexadecimal; remembered where the file is large.

    Raises:
        StorageError: The system refused to read.
    """
    status = os.fstat(descriptor)
    if _folder is None or status.st_size < LARGE_BYTES:
        return contained.sha256(path, descriptor)
    version = _version(status)
    memo = _folder / f"hash-{hashlib.sha256(version.encode()).hexdigest()[:32]}.json"
    with _locked(memo.with_suffix(".lock")):
        known = _read(memo, version)
        if known is None:
            known = contained.sha256(path, descriptor)
            unchanged = _version(os.fstat(descriptor)) == version
            if unchanged and time.time() - status.st_ctime > SETTLED_SECONDS:
                _write(memo, version, known)
        return known


def _version(status: os.stat_result) -> str:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))


def _read(memo: Path, version: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(memo.read_bytes()[:1000])
        if stored["version"] == version and _HASH.fullmatch(stored["sha256"]):
            return stored["sha256"]
    return None


def _write(memo: Path, version: str, digest: str) -> None:
    """Lost on a crash, and that does no harm."""
    draft = memo.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps({"version": version, "sha256": digest}))
        draft.replace(memo)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Lets one process of the host hash while the others wait for the result."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # without a lock each hashes for itself
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
