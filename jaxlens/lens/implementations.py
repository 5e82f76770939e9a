"""The implementations of the lens, by the name that a configuration gives."""

from __future__ import annotations

from jaxlens.lens import pallas, reference, tiled

IMPLEMENTATIONS = {"tiled": tiled.read, "pallas": pallas.read, "reference": reference.read}
"""Name -> function of residuals, unembedding, references, options and what it prepared."""
