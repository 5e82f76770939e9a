"""Compiled programs are kept on disk, so that a run that resumes does not compile again.

JAX writes and reads them, but does not check what it reads: two of its files that are
swapped give wrong numbers silently, a flipped bit can end the process, and a file from
elsewhere is code that runs. So it is given a folder that nobody else can write into, see ``cache``,
and programs are sealed with their sha256 once they are written: whatever has no seal, or another
one, is removed before JAX looks. What is removed is compiled again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxlens import config, errors
from jaxlens.files import contained, publish
from jaxlens.sweep import cache

MAX_BYTES = 2**30
"""Of the programs for one kind of machine; the oldest are removed first."""

FOLDER = "programs"

_SEALS = "SEALS.json"
_SEALS_BYTES = 1 << 22
_MIN_SECONDS = 0.1  # what compiles faster is not worth a file

_PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")
"""What JAX names its files: the function, and a hash of the program and of how it is compiled."""

_enabled: set[str] = set()
"""Folders that `enable` gave to JAX."""

logger = logging.getLogger("jaxlens")


def enable(cached: Path | None) -> Path | None:
    """Makes JAX keep its programs, unless the user has configured a folder.

    Args:
        cached: What ``cache.folder`` returned.

    Returns:
        Folder of the programs; None where none are kept.
    """
    configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if cached is None or (configured and configured not in _enabled):
        return None
    path = cache.private(cached / FOLDER)
    if path is None:
        return None
    try:
        _remove_unsealed(path)
    except (OSError, errors.JaxlensError) as error:
        logger.info("compiled programs are not kept: %s: %s", path, error)
        return None
    _enabled.add(str(path))
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    compilation_cache.reset_cache()  # JAX looks at the settings once, at the first compilation
    return path


@contextlib.contextmanager
def of_user() -> Iterator[None]:
    """Keeps the programs of a command that has no run, where the user's settings say.

    Raises:
        ConfigError: A variable of the environment does not fit.
    """
    programs = enable(cache.folder(config.load(environment=os.environ).cache))
    yield
    seal(programs)


def seal(path: Path | None) -> None:
    """Records the sha256 of every program, once those of a run are written.

    Args:
        path: What ``enable`` returned.
    """
    if path is None:
        return
    try:
        _remove_oldest(path)
        hashes = {file.name: _sha256(file) for file in _programs(path)}
        seals = {name: digest for name, digest in hashes.items() if digest is not None}
        publish.publish(path / _SEALS, json.dumps(seals, sort_keys=True).encode())
    except (OSError, errors.JaxlensError) as error:
        logger.info("compiled programs are not sealed: %s", error)


def _programs(path: Path) -> list[Path]:
    """Files that JAX wrote; other files are neither read nor removed."""
    with os.scandir(path) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if _PROGRAM.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]


def _remove_unsealed(path: Path) -> None:
    """Leaves no name that JAX would read, but those of sealed programs.

    Raises:
        OSError: One cannot be removed.
    """
    seals = _read_seals(path)
    with os.scandir(path) as entries:
        programs = [entry for entry in entries if _PROGRAM.fullmatch(entry.name)]
    for entry in programs:
        file = Path(entry.path)
        with contextlib.suppress(FileNotFoundError):  # another process may tidy up too
            is_file = stat.S_ISREG(os.lstat(file).st_mode)
            if not is_file or seals.get(entry.name, "") != _sha256(file):
                file.unlink()  # of a link the link, never what it leads to


def _read_seals(path: Path) -> dict[str, Any]:
    try:
        seals = json.loads(contained.read(path / _SEALS, _SEALS_BYTES))
    except (ValueError, errors.JaxlensError):
        return {}
    return seals if isinstance(seals, dict) else {}


def _remove_oldest(path: Path) -> None:
    programs = []
    for file in _programs(path):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            programs.append((status.st_mtime, status.st_size, file))
    excess = sum(size for _, size, _ in programs) - MAX_BYTES
    for _, size, file in sorted(programs):
        if excess <= 0:
            return
        excess -= size
        file.unlink(missing_ok=True)


def _sha256(file: Path) -> str | None:
    """Hash of a program; None where another process, which found no seal for it, removed it."""
    try:
        with contained.opened(file) as descriptor:
            return contained.sha256(file, descriptor)
    except errors.MissingError:
        return None
