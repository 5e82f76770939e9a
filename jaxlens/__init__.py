"""Corpus-scale logit lens in JAX: what each layer of GPT-2 would predict if it stopped there.

The names below are resolved when they are first used, so that ``import jaxlens`` is quick and
loads no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Model": "jaxlens.api",
    "PromptTable": "jaxlens.api.prompts.table",
    "RayEngine": "jaxlens.sweep.distributed.ray_engine",
    "load_model": "jaxlens.api",
    "log_probs": "jaxlens.api",
    "merge_runs": "jaxlens.store.merged.merge",
    "open_run": "jaxlens.store.reader",
    "read_lens": "jaxlens.api",
    "read_prompts": "jaxlens.api.prompts.read_prompts",
    "read_residuals": "jaxlens.api",
    "residuals": "jaxlens.api",
    "run_sweep": "jaxlens.sweep.run",
    "study_checkpoints": "jaxlens.study.checkpoints.study_checkpoints",
}
_ALIAS = {"run_sweep": "run"}

__all__ = [
    "Model",
    "PromptTable",
    "RayEngine",
    "__version__",
    "load_model",
    "log_probs",
    "merge_runs",
    "open_run",
    "read_lens",
    "read_prompts",
    "read_residuals",
    "residuals",
    "run_sweep",
    "study_checkpoints",
]

if TYPE_CHECKING:
    from jaxlens.api import (
        Model,
        load_model,
        log_probs,
        read_lens,
        read_residuals,
        residuals,
    )
    from jaxlens.api.prompts.read_prompts import read_prompts
    from jaxlens.api.prompts.table import PromptTable
    from jaxlens.store.merged.merge import merge_runs
    from jaxlens.store.reader import open_run
    from jaxlens.study.checkpoints.study_checkpoints import study_checkpoints
    from jaxlens.sweep.distributed.ray_engine import RayEngine
    from jaxlens.sweep.run import run as run_sweep


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxlens' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), _ALIAS.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
