"""The hash of weights: of the numbers themselves, whatever container they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlens.models.checkpoints import layout


class Digest:
    """SHA-256 over leaves in the order of their sorted paths.

    Of each leaf: path, shape, and the values as little-endian float32.
    """

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def begin(self, path: str, shape: tuple[int, ...]) -> None:
        """A leaf, whose values follow."""
        self._total.update(f"{path} {'x'.join(map(str, shape))}\n".encode())

    def add(self, values: np.ndarray) -> None:
        """The next values of the leaf, in C order."""
        self._total.update(np.ascontiguousarray(values, dtype="<f4").data)

    def leaf(self, path: str, value: np.ndarray) -> None:
        """A whole leaf."""
        self.begin(path, value.shape)
        self.add(value)

    def hexdigest(self) -> str:
        """The hash of what was added."""
        return self._total.hexdigest()


class Unwanted(Digest):
    """Takes what a `Digest` takes, and hashes nothing."""

    def add(self, values: np.ndarray) -> None:
        """Does nothing."""


def of(params: Mapping[str, Any]) -> str:
    """The hash of a pytree of weights."""
    total = Digest()
    for path, value in sorted(layout.flat(params).items()):
        total.leaf(path, value)
    return total.hexdigest()
