"""Model families: which ``model_type`` of a ``config.json`` is computed by which module."""

from __future__ import annotations

import importlib
from types import ModuleType

from jaxlens import errors

FAMILIES: dict[str, str] = {"gpt2": "jaxlens.models.gpt2"}
"""``model_type`` -> module with ``init``, ``residuals`` and ``unembed``."""


def require(model_type: str) -> None:
    """Refuses an architecture that no family computes.

    Raises:
        DataError: Naming the architecture.
    """
    if model_type not in FAMILIES:
        raise errors.DataError(
            f"architecture {model_type[:80]!r} is not supported",
            f"supported model types: {', '.join(FAMILIES)}",
        )


def family(model_type: str) -> ModuleType:
    """The module that computes an architecture, imported on first use.

    Raises:
        DataError: The architecture is not supported.
    """
    require(model_type)
    return importlib.import_module(FAMILIES[model_type])
