"""Files that are elsewhere until they are read.

A *mirror* is a local directory that stands for a folder kept elsewhere. It has a file for each file
there, of the right size, whose bytes are fetched when it is opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from jaxlens import errors


class Mirror(Protocol):
    """A local directory whose files are fetched when they are opened.

    Attributes:
        path: The directory, without links.
        name: What it stands for, as users call it.
    """

    path: Path
    name: str

    def held(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Fetches a file, by its path in the directory, and keeps it while the block lasts."""
        ...


_mirrors: dict[str, Mirror] = {}


@contextlib.contextmanager
def attached(mirror: Mirror) -> Generator[None]:
    """Fetches the files of a mirror that are opened while the block lasts."""
    root = os.fspath(mirror.path)
    _mirrors[root] = mirror
    try:
        yield
    finally:
        del _mirrors[root]


def held(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Fetches a file of a mirror, and keeps it while the block lasts; for others does nothing."""
    if _mirrors and (mirror := mirror_of(path)) is not None:
        return _held(mirror, os.path.relpath(path, mirror.path))
    return contextlib.nullcontext()


@contextlib.contextmanager
def _held(mirror: Mirror, name: str) -> Generator[None]:
    with renamed(mirror), mirror.held(name):
        yield


@contextlib.contextmanager
def renamed(mirror: Mirror) -> Generator[None]:
    """Names what a mirror stands for, not the mirror, in what goes wrong while the block lasts."""
    try:
        yield
    except errors.JaxlensError as error:
        error.message = in_names(error.message, mirror)
        error.hint = in_names(error.hint, mirror)
        error.args = (error.message,)
        raise


def mirror_of(path: str | Path) -> Mirror | None:
    """The mirror that a path leads into, or is; None for others."""
    text = os.fspath(path)
    for root, mirror in list(_mirrors.items()):
        if text == root or text.startswith(root + os.sep):
            return mirror
    return None


def name_of(path: str | Path) -> str:
    """A path as users call it: that of a mirror by what it stands for."""
    return in_name_of(path, os.fspath(path))


def in_name_of(path: str | Path, text: str) -> str:
    """A text about what is at a path, as users call it."""
    mirror = mirror_of(path)
    return text if mirror is None else in_names(text, mirror)


def in_names(text: str, mirror: Mirror) -> str:
    """A text in which the paths of a mirror are those of what it stands for."""
    return text.replace(os.fspath(mirror.path), mirror.name)
