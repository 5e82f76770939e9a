"""Recomputed lines of the table, by estimator, stratum and layer."""

from __future__ import annotations

import numpy as np
from study.independent.bootstrap import Number


class Lines(dict):
    """Numbers by ``(estimator, stratum, layer)``; the layer of what has none is None."""

    def put(self, name, value, se=np.nan, *, stratum="all", layer=None):
        assert (name, stratum, layer) not in self
        self[name, stratum, layer] = Number(float(value), float(se))

    def by_layer(self, name, values, errors=None, *, stratum="all", first=0):
        """A number for each layer, from ``first`` on."""
        errors = np.full(len(values), np.nan) if errors is None else errors
        for layer in range(first, len(values)):
            self.put(name, values[layer], errors[layer], stratum=stratum, layer=layer)
