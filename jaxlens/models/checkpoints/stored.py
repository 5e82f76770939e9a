"""Weights that have been found in a folder, and not been read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors, types
from jaxlens.models.checkpoints import (
    digest,
    formats,
    gguf,
    layout,
    orbax,
    stack,
    stored_tensor,
    stream,
)


@dataclass(frozen=True)
class Stored:
    """Weights in a folder.

    Attributes:
        directory: The folder.
        weights: Their format and file.
        label: What to call the folder.
        expected: What they must fit.
    """

    directory: Path
    weights: formats.Found
    label: str
    expected: layout.Layout

    def read(self) -> types.Params:
        """All leaves, float32 and stacked over layers.

        Raises:
            DataError: A file is damaged, or does not fit.
        """
        self._require_memory()
        if self.weights.format == formats.ORBAX:
            return orbax.load(self.directory, self.expected, self.label)
        return stack.stack(self._tensors(), self.expected, self._flavour, self._where)

    def stream(self, dtype: str, total: digest.Digest) -> stream.Leaves:
        """The same leaves one after another; those of msgpack files are in memory together.

        Args:
            dtype: Of the leaves.
            total: Is told their values in float32.

        Raises:
            DataError: As `read`; leaves before the one at fault have been given.
        """
        if self.weights.format == formats.ORBAX:
            leaves = orbax.stream(self.directory, self.expected, self.label)
            return stream.converted(leaves, dtype, total)
        if self.weights.format == "msgpack":
            return stream.of_params(self.read(), dtype, total)
        where = self._flavour, self._where
        return stream.of_tensors(self._tensors(), self.expected, *where, dtype, total)

    def _tensors(self) -> Iterator[stored_tensor.Tensor]:
        if self.weights.format == formats.GGUF:
            path = self.directory / self.weights.file
            return gguf.tensors(path, self._where, self.expected)
        return formats.tensors(self.directory, self.weights, self.label, self.expected)

    @property
    def _flavour(self) -> layout.Flavour:
        return formats.FLAVOUR[self.weights.format]

    @property
    def _where(self) -> str:
        return f"{self.label}/{self.weights.file}"

    @property
    def _config(self) -> str:
        """What says how large the model is."""
        file = self.weights.file if self.weights.format == formats.GGUF else "config.json"
        return f"{self.label}/{file}"

    def _require_memory(self) -> None:
        """Refuses what no allocation could hold; a damaged digit is enough for terabytes."""
        needed = 4 * self.expected.count(with_optional=False)
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > machine:
            raise errors.DataError(
                f"{self._config}: describes {needed / 2**30:.0f} GiB of float32 weights, "
                f"this machine has {machine / 2**30:.0f} GiB of memory",
                "that is damaged, or the model needs a larger machine",
            )
