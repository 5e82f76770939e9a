"""The implementations of the lens, by the name that a configuration gives."""

from __future__ import annotations

from jaxlens.lens import reference, tiled

IMPLEMENTATIONS = {"tiled": tiled.read, "reference": reference.read}
"""Name -> function of residuals, unembedding, references, options and what it prepared."""
