"""Weights and configurations that are in memory: state dicts, Flax trees, training checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import layout, names, stored_tensor

CONTAINERS = ("model", "state_dict", "model_state_dict", "module", "params")
"""Keys under which training checkpoints keep the weights, beside an optimizer and the like."""

CONFIG = "model_args"
"""Key under which nanoGPT's ``ckpt.pt`` keeps its configuration."""

_DEEPEST = 4


def weights_of(state: Mapping[Any, Any], expected: layout.Layout) -> Mapping[Any, Any]:
    """The mapping of names to arrays inside of a training checkpoint, or the mapping itself.

    An entry of ``CONTAINERS`` is taken if it holds weights and what lies beside it holds none.
    """
    for _ in range(_DEEPEST):
        inner = [key for key in CONTAINERS if isinstance(state.get(key), Mapping)]
        rest = {key: value for key, value in state.items() if key not in inner[:1]}
        if not inner or _has_weights(rest, expected):
            break
        state = state[inner[0]]
    return state


def config_of(state: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """The configuration that nanoGPT keeps beside the weights; None where there is none."""
    config = state.get(CONFIG)
    return config if isinstance(config, Mapping) else None


def of_module(model: Any, config: Any = None) -> tuple[Mapping[Any, Any], Any]:
    """The state dict of a PyTorch model and its configuration.

    Args:
        model: Also one inside ``torch.nn.DataParallel`` or whatever else keeps it as ``module``.
        config: Taken instead of its own.
    """
    state = model.state_dict()
    while config is None and model is not None:
        config, model = getattr(model, "config", None), getattr(model, "module", None)
    return state, config


def tensors(
    state: Mapping[Any, Any], expected: layout.Layout
) -> tuple[Iterator[stored_tensor.Tensor], layout.Flavour]:
    """The tensors of a state dict, each converted as it is taken, and whose names they have.

    Args:
        state: PyTorch's state dict, or Flax's parameters, nested or flattened.
        expected: Whose names its tensors have.

    Raises:
        DataError: Nested too deeply, or (while reading) a value is not an array.
    """
    leaves = _flat(weights_of(state, expected))
    return _tensors(leaves), _flavour(leaves)


def _tensors(leaves: Mapping[str, Any]) -> Iterator[stored_tensor.Tensor]:
    for name, value in leaves.items():
        try:
            array = _array(value)
        except Exception as error:
            # PyTorch raises its own for tensors without memory, on lost devices, or sparse ones.
            reason = f"{type(error).__name__}: {untrusted.line(error)}"
            raise errors.DataError(
                f"state: {untrusted.shown(name)} is not an array ({reason})",
                "give arrays, or tensors that hold values",
            ) from error
        yield stored_tensor.of_array(name, array, "state")


def _array(value: Any) -> np.ndarray:
    """An array as it is, a PyTorch tensor by way of the CPU; without importing PyTorch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
        if kind.startswith("float8"):
            raise ValueError(f"dtype {kind} needs its scales")
        # PyTorch's bfloat16 has no NumPy type, so its floats go through float32 (or float64).
        if value.is_floating_point() and kind != "float64":
            value = value.float()
        value = value.numpy()
    return np.asarray(value)


def _flat(state: Mapping[Any, Any]) -> dict[str, Any]:
    joined = {
        "/".join(map(str, key)) if isinstance(key, tuple) else key: value
        for key, value in state.items()
    }
    return layout.flat(joined)


def _flavour(leaves: Mapping[str, Any]) -> layout.Flavour:
    return "flax" if any("/" in name for name in leaves) else "torch"


def _has_weights(rest: Mapping[Any, Any], expected: layout.Layout) -> bool:
    """Whether any name is one of the model's."""
    try:
        leaves = _flat(rest)
    except errors.DataError:
        return False
    return any(
        expected.find(name, flavour) or names.other_task(name, layout.SEPARATOR[flavour])
        for flavour in layout.FLAVOURS
        for name in leaves
    )
