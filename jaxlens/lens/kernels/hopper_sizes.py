"""Static sizes of the Hopper kernel, and the arrays that they make it read and write."""

from __future__ import annotations

from dataclasses import dataclass

from jaxlens.lens.kernels import fragments

DEPTH = 64
"""Elements of rows and tile that are multiplied at once: 128 bytes, the widest swizzle."""

ENDS_WIDTH = 32
"""Columns of the ends' logits in 128 bytes."""


@dataclass(frozen=True)
class Shape:
    """Static sizes of a call.

    Attributes:
        layers: Layers a block of threads.
        tile: Columns a tile, a multiple of 64.
        splits: Parts of the vocabulary that different blocks of threads read.
        stages: Buffers of the ring.
        is_tempered: Whether the tempered sum is wanted.
        is_of_ends: Whether the rows are those of the end layers: their logits are written, and
            compared with no others.
        top_k: Best columns that are wanted.
    """

    layers: int
    tile: int
    splits: int
    stages: int
    is_tempered: bool
    is_of_ends: bool = False
    top_k: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that are read, in their order."""
        always = ("rows", "weight", "biases", "reference_logits", "ids", "inverse_temperature")
        return always if self.is_of_ends else (*always, "end_logits", "end_log_total")

    @property
    def floats(self) -> tuple[str, ...]:
        """Names of the floats, in their order."""
        of_ends = () if self.is_of_ends else fragments.OF_ENDS
        always = (*fragments.best_logits(self.top_k), *fragments.SUMS)
        return (*always, *of_ends, *[fragments.TEMPERED] * self.is_tempered)
