"""Sampled rows of a tally, by the names of their fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from jaxlens.tally import sampling


@dataclass(frozen=True, eq=False)
class Lines:
    """Sampled rows.

    Attributes:
        values: ``[row, field]``, see ``sampling.fields``.
        n_layers: Number of layers.
    """

    values: Int64[np.ndarray, "row field"]
    n_layers: int

    @classmethod
    def of(cls, tally: Int64[np.ndarray, "place field"], n_layers: int) -> Lines:
        """The rows of a ``bottom_k`` tally, without its empty places."""
        return cls(tally[tally[:, 0] != sampling.NO_KEY], n_layers)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> Int64[np.ndarray, " row"]:
        """A field."""
        return self.values[:, sampling.fields(self.n_layers).index(name)]

    def layers(self, name: str) -> Int64[np.ndarray, "row layer"]:
        """A field that there is of each layer."""
        first = sampling.fields(self.n_layers).index(f"{name}.0")
        return self.values[:, first : first + self.n_layers]

    def where(self, mask: Bool[np.ndarray, " row"]) -> Lines:
        """Some of the rows."""
        return Lines(self.values[mask], self.n_layers)
