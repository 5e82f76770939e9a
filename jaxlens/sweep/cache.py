"""What a machine keeps between runs: compiled programs and measured choices, never results.

Whoever can write into the folder can have programs run, so nothing is kept where anybody else can:
every level of its path is looked at, from the root down.
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
    """Somebody else could change what is kept; says where and how."""


def folder(told: str | None) -> Path | None:
    """A private folder for machines like this one, which is made if needed.

    Args:
        told: The configuration's ``cache``; the user's cache folder by default.

    Returns:
        None where nothing is to be kept, or where it cannot be: the folder cannot be made, or
        others could change it or put another in its place.
    """
    if told == NOWHERE:
        return None
    path = Path(told or _default()).expanduser().absolute()
    return private(path / _kind())


def private(path: Path) -> Path | None:
    """A folder that is ours alone, which is made if needed; None where it cannot be.

    Links above it are followed where nobody else can have made them; the folder itself is none.

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
    place = Path(path.anchor)
    _require_safe(place, os.lstat(place))
    links = 0
    while rest:
        below = place / rest.pop()
        if not os.path.lexists(below):
            below.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(below)
        if not stat.S_ISLNK(status.st_mode):
            _require_safe(below, status, last=not rest)
            place = below
            continue
        links += 1
        if not rest or links > _MAX_LINKS:
            raise _Unsafe(f"{below} is a link")
        _require_owner(below, status)
        target = os.path.normpath(place / os.readlink(below))
        rest += [part for part in reversed(target.split(os.sep)) if part]
        place = Path(path.anchor)
    return place


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
