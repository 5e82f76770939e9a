"""Compiled programs are kept on disk, so that a run that resumes does not compile again.

JAX writes and reads them; here is decided where, and that nothing damaged is ever read: programs
are sealed with their sha256 once they are written, and whatever has no seal, or another one, is
removed before JAX looks. What is removed is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxlens import errors
from jaxlens.store import access, publish

MOST_BYTES = 2**30
"""Of one kind of machine; the oldest go first."""

FOLDER = "programs"

_SEALS = "SEALS.json"
_SEALS_BYTES = 1 << 22
_LEAST_SECONDS = 0.1  # what compiles faster is not worth a file

logger = logging.getLogger("jaxlens")


def keep(cached: Path | None) -> Path | None:
    """Makes JAX keep its programs, unless the user has told it a folder.

    Args:
        cached: What ``cache.folder`` returned.

    Returns:
        Where the programs are; None where none are kept here.
    """
    told = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if cached is None or (told and Path(told).name != FOLDER):
        return None
    path = cached / FOLDER
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        _remove_unsealed(path)
    except OSError as error:
        logger.info("compiled programs are not kept: %s: %s", path, error.strerror)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    compilation_cache.reset_cache()  # JAX looks at the settings once, at the first compilation
    return path


def seal(path: Path | None) -> None:
    """Notes the sha256 of every program, once those of a run are written.

    Args:
        path: What ``keep`` returned.
    """
    if path is None:
        return
    try:
        _remove_oldest(path)
        seals = {file.name: _sha256(file) for file in _programs(path)}
        publish.publish(path / _SEALS, json.dumps(seals, sort_keys=True).encode())
    except (OSError, errors.JaxlensError) as error:
        logger.info("compiled programs are not sealed: %s", error)


def _programs(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.name != _SEALS and file.is_file()]


def _remove_unsealed(path: Path) -> None:
    seals = _read_seals(path)
    for file in _programs(path):
        if seals.get(file.name) != _sha256(file):
            file.unlink(missing_ok=True)


def _read_seals(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(access.read(path / _SEALS, _SEALS_BYTES))
    except (ValueError, errors.JaxlensError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove_oldest(path: Path) -> None:
    files = sorted(_programs(path), key=lambda file: file.stat().st_mtime)
    excess = sum(file.stat().st_size for file in files) - MOST_BYTES
    for file in files:
        if excess <= 0:
            return
        excess -= file.stat().st_size
        file.unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
