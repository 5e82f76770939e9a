"""Checkpoints of a probe under way: a line of JSON, arrays as they lie in memory, and a hash.

They are written atomically, read only by the probe that wrote them, and removed in the end. One
that is damaged, or of other settings, is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.files import contained, publish

SECONDS = 30.0
"""Between two checkpoints, unless writing one takes more than a tenth of that."""

_SHARE = 10.0
_MAX_HEADER = 1 << 16

logger = logging.getLogger("jaxlens")


class Interval:
    """When the next checkpoint is due.

    Args:
        seconds: Between two of them at least.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds, self._wait, self._last = seconds, seconds, time.monotonic()

    def is_due(self) -> bool:
        """Whether to write one now."""
        return time.monotonic() - self._last >= self._wait

    def written(self, began: float) -> None:
        """One was written, from ``began`` (of ``time.monotonic``) until now."""
        self._last = time.monotonic()
        self._wait = max(self._seconds, _SHARE * (self._last - began))


def write(path: Path, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint.

    Args:
        path: File, in a folder that exists.
        state: JSON values that say what it is of.
        arrays: Numbers.

    Raises:
        StorageError: The disk is full or failed.
    """
    header = json.dumps(state, sort_keys=True).encode() + b"\n"
    with publish.stream(path) as file:
        file.write(header)
        for name in sorted(arrays):
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
        file.write(bytes.fromhex(file.sha256))


def read(
    path: Path, known: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Reads a checkpoint into arrays.

    Args:
        path: File.
        known: What its state must say.
        arrays: Filled with what it holds; of the same names, types and shapes as were written.

    Returns:
        Its state; None where there is no such checkpoint, and then the arrays hold anything.
    """
    try:
        with contained.opened(path) as descriptor, contained.reading(path):
            return _fill(descriptor, known, arrays)
    except errors.MissingError:
        return None
    except (ValueError, AttributeError, errors.DataError) as error:
        logger.warning("%s is damaged, its part of the probe is computed again: %s", path, error)
        return None


def _fill(
    descriptor: int, known: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Fills the arrays.

    Raises:
        ValueError: The checkpoint is damaged.
    """
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        header = file.readline(_MAX_HEADER)
        digest.update(header)
        state = json.loads(header)
        if {name: state.get(name) for name in known} != dict(known):
            return None
        for name in sorted(arrays):
            view = arrays[name].reshape(-1).view(np.uint8).data
            if file.readinto(view) != len(view):
                raise ValueError("it is too short")
            digest.update(view)
        if file.read(digest.digest_size + 1) != digest.digest():
            raise ValueError("its hash differs")
    return state
