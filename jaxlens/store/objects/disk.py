"""Writes to a mirror that go to the object store first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from jaxlens.files import system, temporary


class Uploads(Protocol):
    """What a mirror does with files that are written to it, by their paths in it."""

    def upload(self, name: str, source: Path) -> None:
        """Creates or replaces an object."""
        ...

    def create(self, name: str, source: Path) -> bool:
        """Creates an object, unless it exists; whether it did not."""
        ...

    def delete(self, name: str) -> None:
        """Removes an object, if it exists."""
        ...


class ObjectDisk(system.Disk):
    """The durable system calls of ``files.publish``, for the files of a mirror.

    A file that gets its name becomes an object. Drafts stay here, and nothing is synced: the mirror
    does not outlive the process.

    Args:
        root: Directory of the mirror.
        uploads: The mirror.
    """

    def __init__(self, root: Path, uploads: Uploads) -> None:
        self._root = root
        self._uploads = uploads

    def fsync(self, descriptor: int) -> None:
        """Does nothing."""

    def fsync_directory(self, path: str) -> None:
        """Does nothing."""

    def rename(self, source: str, target: str) -> None:
        """Replaces the object of ``target`` by the bytes of ``source``."""
        self._uploads.upload(self._name(target), Path(source))
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Creates the object of ``target``, which must not exist."""
        if not self._uploads.create(self._name(target), Path(source)):
            raise FileExistsError(target)
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Removes a draft, or an object and what stands for it."""
        if not temporary.is_temporary(os.path.basename(path)):
            os.lstat(path)  # what is not there needs no request
            self._uploads.delete(self._name(path))
        os.unlink(path)

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._root)
