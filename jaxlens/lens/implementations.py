"""The implementations of the lens, by the name that a configuration gives."""

from __future__ import annotations

from collections.abc import Callable

from jaxlens import types
from jaxlens.lens import pallas, reference, tiled

IMPLEMENTATIONS: dict[str, Callable[..., types.Readout]] = {
    "tiled": tiled.read,
    "pallas": pallas.read,
    "reference": reference.read,
}
"""Name -> function of residuals, unembedding, references, options and what it prepared."""
