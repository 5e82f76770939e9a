"""The tensors of a checkpoint to the stacked float32 pytree and back, every one checked."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

from jaxlens import errors, types
from jaxlens.models.checkpoints import checks, inventory, layout, stored_tensor, variants

logger = logging.getLogger("jaxlens")

_ALIGNMENT = 64


def stack(
    tensors: Iterable[stored_tensor.Tensor],
    expected: layout.Layout,
    flavour: layout.Flavour,
    label: str,
) -> types.Params:
    """Stacks the tensors of a checkpoint over layers, each checked as it is read.

    Args:
        tensors: All tensors of the checkpoint, in any order.
        expected: What they must fit.
        flavour: Whose names and orientation they have.
        label: What to call the checkpoint where a tensor is missing.

    Raises:
        DataError: A tensor is missing, unexpected, twice there, of the wrong type or shape, or
            not finite.
    """
    stacks: dict[str, np.ndarray] = {}
    kernels: list[variants.Kernel] = []
    seen, others = inventory.Seen(), dict[str, str]()
    for tensor, leaf, layer in inventory.placed(tensors, expected, flavour, seen, others):
        is_turned = stored_tensor.is_turned(tensor, leaf, flavour, kernels)
        value = stored_tensor.read(tensor, is_turned)
        if leaf.path not in stacks:
            stacks[leaf.path] = aligned(expected.stacked_shape(leaf))
        stacks[leaf.path][layer if expected.is_layered(leaf) else ...] = value
    notes = inventory.settle(stacks, seen, others, expected, flavour, label)
    variants.settle_orientation(stacks, kernels, expected, flavour, notes)
    params = layout.nested(checks.drop_tied_head(stacks, expected, label))
    for note in notes:
        logger.info("%s: %s", label, note)
    return params


def unstack(
    params: types.Params, expected: layout.Layout, flavour: layout.Flavour
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values in the layout of a container, the inverse of ``stack``."""
    for path, stacked in layout.flat(params).items():
        leaf = expected.by_path[path]
        value = np.asarray(stacked)
        if flavour in leaf.transposed_in:
            value = np.swapaxes(value, -1, -2)
        for layer in range(expected.copies(leaf)):
            name = expected.full_name(leaf, flavour, layer)
            yield name, value[layer] if expected.is_layered(leaf) else value


def cast(params: types.Params, dtype: str) -> types.Params:
    """Parameters in the type to store, as NumPy arrays.

    Raises:
        DataError: A value overflows in ``dtype``.
    """
    kind = jnp.dtype(dtype)
    leaves = {}
    for path, value in layout.flat(params).items():
        with np.errstate(over="ignore"):
            leaves[path] = np.asarray(value).astype(np.float32, copy=False).astype(kind, copy=False)
        if not np.isfinite(leaves[path]).all():
            raise errors.DataError(f"parameters: {path} overflows in {dtype}", "use float32")
    return layout.nested(leaves)


def aligned(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Memory that JAX on a CPU uses as it is; where it is not aligned so, JAX makes a copy."""
    kind = jnp.dtype(dtype)
    size = kind.itemsize * math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(kind).reshape(shape)
