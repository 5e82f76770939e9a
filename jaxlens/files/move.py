"""Moving files of a run within their file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from jaxlens.files import publish, refusals, system


def move_all(moves: Mapping[Path, Path], disk: system.Disk = system.DISK) -> None:
    """Moves files within a file system, in this order; each is in one place or in the other.

    Args:
        moves: New path by old path; a file of that name is replaced, its directory made.
        disk: System calls.

    Raises:
        StorageError: The system refused.
    """
    for folder in {target.parent for target in moves.values()}:
        publish.make_directory(folder, disk)
    for source, target in moves.items():
        with refusals.writing(target), contextlib.suppress(FileNotFoundError):  # moved by another
            disk.rename(os.fspath(source), os.fspath(target))
    for folder in {path.parent for move in moves.items() for path in move}:
        with refusals.writing(folder):
            disk.fsync_directory(os.fspath(folder))
