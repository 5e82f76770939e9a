"""The public functions: load a model, take its residuals, read the lens."""

from __future__ import annotations

from jaxlens.api.lens import Layers, log_probs, read_lens, read_residuals, residuals
from jaxlens.api.model import load_model
from jaxlens.api.readout import Readout
from jaxlens.models.loading import Model

__all__ = [
    "Layers",
    "Model",
    "Readout",
    "load_model",
    "log_probs",
    "read_lens",
    "read_residuals",
    "residuals",
]
