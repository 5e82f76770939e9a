"""The cache of a machine: compiled programs, never results.

Whoever can write into the folder can run code, so nothing is kept where another user can write:
every level of the path is checked, from the root down.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from pathlib import Path

from jaxlens.sweep import environment

NOWHERE = "none"

_MAX_LINKS = 40
"""Links of a path that are followed, as by the system."""

logger = logging.getLogger("jaxlens")


class _Unsafe(Exception):
    """Another user could change the folder; the message says where and how."""


def folder(configured: str | None) -> Path | None:
    """A private folder for machines like this one, made if needed.

    Args:
        configured: The configuration's ``cache``; the user's cache folder by default.

    Returns:
        None where nothing is to be kept, or where it cannot be: the folder cannot be made, or
        others could change it or replace it.
    """
    if configured == NOWHERE:
        return None
    path = Path(configured or _default()).expanduser().absolute()
    return private(path / _kind())


def private(path: Path) -> Path | None:
    """A folder that only this user can write, made if needed; None where that is not possible.

    Links above it are followed where no other user can have made them; it is not a link itself.

    Args:
        path: Absolute.
    """
    try:
        return _make(path)
    except _Unsafe as unsafe:
        logger.warning("nothing is cached: %s", unsafe)
    except OSError as error:
        logger.info("nothing is cached: %s: %s", path, error.strerror)
    return None


def _make(path: Path) -> Path:
    """The folder by a path without links, each level of which was looked at.

    Raises:
        OSError: A level cannot be made, or is something else.
        _Unsafe: Others can change a level.
    """
    rest = [part for part in reversed(os.path.normpath(path).split(os.sep)) if part]
    current = Path(path.anchor)
    _require_safe(current, os.lstat(current))
    links = 0
    while rest:
        child = current / rest.pop()
        if not os.path.lexists(child):
            child.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(child)
        if not stat.S_ISLNK(status.st_mode):
            _require_safe(child, status, last=not rest)
            current = child
            continue
        links += 1
        if not rest or links > _MAX_LINKS:
            raise _Unsafe(f"{child} is a link")
        _require_owner(child, status)
        target = os.path.normpath(current / os.readlink(child))
        rest += [part for part in reversed(target.split(os.sep)) if part]
        current = Path(path.anchor)
    return current


def _require_safe(path: Path, status: os.stat_result, last: bool = False) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(0, "is not a directory", os.fspath(path))
    _require_owner(path, status)
    open_to = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a folder such as /tmp others can make files, but not replace ours.
    if open_to and (last or not status.st_mode & stat.S_ISVTX):
        raise _Unsafe(f"others can write into {path}; chmod go-w {path}")
    if last and status.st_uid != os.getuid():
        raise _Unsafe(f"{path} belongs to another user")


def _require_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.getuid()):
        raise _Unsafe(f"{path} belongs to another user")


def _default() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jaxlens"


def _kind() -> str:
    """Machines that can run each other's programs; a processor's name does not say all."""
    here = environment.decisive(environment.describe())
    here["instructions"] = environment.instructions()
    return hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()[:16]
