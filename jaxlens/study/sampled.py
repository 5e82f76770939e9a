"""Sampled rows of a tally, by the names of their fields."""

from __future__ import annotations

import numpy as np

from jaxlens import sampling


class Lines:
    """Sampled rows by the names of their fields.

    Args:
        lines: ``[row, field]`` of a ``bottom_k`` tally.
        n_layers: Number of layers.
    """

    def __init__(self, lines: np.ndarray, n_layers: int) -> None:
        self.lines = lines[lines[:, 0] != sampling.NO_KEY]
        self._place = {name: i for i, name in enumerate(sampling.fields(n_layers))}
        self.n_layers = n_layers

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.lines[:, self._place[name]]

    def layers(self, name: str) -> np.ndarray:
        """A field that there is of each layer, ``[row, layer]``."""
        first = self._place[f"{name}.0"]
        return self.lines[:, first : first + self.n_layers]

    def where(self, chosen: np.ndarray) -> Lines:
        """Some of the rows."""
        found = Lines.__new__(Lines)
        found.lines, found._place, found.n_layers = self.lines[chosen], self._place, self.n_layers
        return found
