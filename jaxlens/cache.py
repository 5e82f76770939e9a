"""What a machine keeps between runs: compiled programs and measured choices, never results."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from pathlib import Path

from jaxlens import environment

NOWHERE = "none"

logger = logging.getLogger("jaxlens")


def folder(told: str | None) -> Path | None:
    """A private folder for machines like this one, which is made if needed.

    Args:
        told: The configuration's ``cache``; the user's cache folder by default.

    Returns:
        None where nothing is to be kept, or where it cannot be: the folder cannot be made, or
        others can write into it, who could have programs run.
    """
    if told == NOWHERE:
        return None
    path = Path(told or _default()).expanduser() / _kind()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        logger.info("nothing is cached: %s: %s", path, error.strerror)
        return None
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        logger.warning("nothing is cached: others can write into %s", path)
        return None
    return path


def _default() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jaxlens"


def _kind() -> str:
    """Machines that can run each other's programs; a processor's name does not say all."""
    here = environment.decisive(environment.describe())
    here["instructions"] = environment.instructions()
    return hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()[:16]
