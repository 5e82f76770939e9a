"""Files at the paths that users name: pages, figures, tables.

A file appears whole or not at all, and the file before it survives a full disk. Only regular files
are replaced; devices and pipes are written to, and anything else is refused. Files of a run, and
those that an export creates, go through `publish` directly.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxlens import errors
from jaxlens.files import publish, refusals

_MAX_LINKS = 40
"""Links that are followed, as by the system."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFLNK: "a link",
}
_WRITABLE = frozenset({stat.S_IFCHR, stat.S_IFIFO})
"""What is written to as it is."""


def write(path: str | Path, data: publish.Bytes, own: bool = False) -> None:
    """Creates or replaces a file, or writes to a device or a pipe.

    Links are followed and stay; their target is written.

    Args:
        path: Target, in a directory that exists.
        data: All of its bytes.
        own: Whether jaxlens chose the name, as that of a report in the folder of its run or of a
            table in a folder that the user named. Then links are not followed, since whoever made
            the folder made them, and anything but a regular file is refused.

    Raises:
        ConfigError: A directory, a socket or a block device has that path; with ``own``, anything
            but a regular file.
        StorageError: The system refused; the file is as it was before.
    """
    with refusals.writing(path):
        target = _regular(os.fspath(path), own)
    if target is not None:
        publish.publish(target, data)
        return
    with refusals.writing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            _write_all(stream.fileno(), data)


def write_all(folder: str | Path, named: Mapping[str, publish.Bytes]) -> list[Path]:
    """Writes files whose names jaxlens chose into a folder, which is created if needed.

    The folder may be reached through a link; links in it are not followed, as in `write` with
    ``own``. Every name is checked before the first file is written, and none is replaced before all
    are written.

    Args:
        folder: Any folder.
        named: All bytes of each file, by name.

    Returns:
        Paths of the files.

    Raises:
        ConfigError: Anything but a regular file has one of the names.
        StorageError: The system refused.
    """
    publish.make_directory(folder)
    paths = [Path(folder) / name for name in named]
    require_own(paths)
    publish.publish_all(dict(zip(paths, named.values(), strict=True)))
    return paths


def require(path: str | Path) -> None:
    """Refuses a path that `write` and `append` would refuse, before the work for it is done.

    Raises:
        ConfigError: A directory, a socket or a block device has that path.
        StorageError: Its folder does not exist, or is read-only.
    """
    with refusals.writing(path):
        target = _regular(os.fspath(path), own=False)
    if target is None:
        return
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder):
        raise errors.StorageError(
            f"cannot write {path}: its folder does not exist", refusals.create_folder_hint(target)
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.StorageError(
            f"cannot write {path}: its folder is read-only", "name a file in another folder"
        )


def require_own(paths: Iterable[Path]) -> None:
    """Refuses paths that `write` with ``own`` would refuse, before the work for them is done.

    Raises:
        ConfigError: Anything but a regular file has one of them.
    """
    for path in paths:
        with refusals.writing(path):
            _regular(os.fspath(path), own=True)


def append(path: str | Path, data: bytes) -> None:
    """Adds to the end of a file, which is created if needed, or writes to a device or a pipe.

    Raises:
        ConfigError: A directory, a socket or a block device has that path.
        StorageError: The system refused; the file is as long as it was.
    """
    with refusals.writing(path):
        _regular(os.fspath(path), own=False)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
            except OSError:
                with contextlib.suppress(OSError):  # a pipe has no length
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def is_stream(path: str | Path) -> bool:
    """Whether a path leads to a device, a pipe or an open file, which are written to as they are.

    Raises:
        ConfigError: A directory, a socket or a block device has that path.
        StorageError: The system refused to look.
    """
    with refusals.writing(path):
        return _regular(os.fspath(path), own=False) is None


def _regular(path: str, own: bool) -> str | None:
    """The regular file that a path leads to, or could; None for what is written to as it is."""
    target = path
    for _ in range(_MAX_LINKS):
        try:
            kind = stat.S_IFMT(os.lstat(target).st_mode)
        except FileNotFoundError:
            return target
        if kind == stat.S_IFREG:
            return target
        if own or kind not in (*_WRITABLE, stat.S_IFLNK):
            raise errors.ConfigError(
                f"{path} is {_KINDS.get(kind, 'not a regular file')}",
                "remove it" if own else "name a file, or a path at which there is nothing yet",
            )
        # Links such as /proc/self/fd/1 name an open file, not a path.
        if kind in _WRITABLE or os.path.realpath(os.path.dirname(target)).startswith("/proc/"):
            return None
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    raise errors.ConfigError(f"{path} is a link that leads nowhere", "name another file")


def _write_all(descriptor: int, data: publish.Bytes) -> None:
    view = memoryview(data).cast("B")
    while view.nbytes:
        view = view[os.write(descriptor, view) :]
