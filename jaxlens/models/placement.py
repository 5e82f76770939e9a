"""Weights on devices that share a model: which axis of a leaf is split, and how it gets there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxlens import errors, models, types
from jaxlens.lens import mesh
from jaxlens.models.checkpoints import layout


def require(architecture: types.Architecture, count: int) -> None:
    """Refuses so many devices where they could not take equal shares.

    Raises:
        ConfigError: Naming what they do not divide.
    """
    sizes = {"n_embd": architecture.n_embd}
    expected = models.leaves(architecture)
    for leaf in expected.leaves:
        if leaf.split is not None:
            sizes.setdefault(leaf.path, leaf.shape[leaf.split] // leaf.matrices)
    for name, size in sizes.items():
        if size % count:
            raise errors.ConfigError(
                f"mesh.model is {count}, which does not divide the model's {name} of {size}",
                f"give a divisor of {math.gcd(*sizes.values())}",
            )


def shapes(architecture: types.Architecture, dtype: str, count: int = 1) -> types.Params:
    """Shapes, types and layouts of a model's weights on so many devices that share it.

    Those that a checkpoint may lack are left out.
    """
    expected = models.leaves(architecture)
    return layout.nested(
        {leaf.path: _shape(expected, leaf, dtype, count) for leaf in expected.required()}
    )


def put(
    value: np.ndarray,
    expected: layout.Layout,
    path: str,
    dtype: str,
    devices: Sequence[jax.Device],
) -> jax.Array:
    """One leaf on devices that share it, each of which is given its own share alone.

    Args:
        value: Stacked over layers, on the host.
        expected: Whose leaf it is.
        path: Of the leaf.
        dtype: That it becomes.
        devices: Several.
    """
    shape = _shape(expected, expected.by_path[path], dtype, len(devices))
    value = value.reshape(shape.shape)

    def share(index: Any) -> np.ndarray:
        return value[index].astype(shape.dtype)

    over = mesh.of(devices)
    sharding = NamedSharding(over, shape.sharding.spec)
    return jax.make_array_from_callback(shape.shape, sharding, share)


def _shape(
    expected: layout.Layout, leaf: layout.Leaf, dtype: str, count: int
) -> jax.ShapeDtypeStruct:
    shape, kind = expected.stacked_shape(leaf), jnp.dtype(dtype)
    if count == 1:
        return jax.ShapeDtypeStruct(shape, kind)
    axis = leaf.split
    if axis is not None:
        axis += len(shape) - len(leaf.shape)
        if leaf.matrices > 1:  # each device has a share of each of them
            shape = (*shape[:axis], leaf.matrices, shape[axis] // leaf.matrices, *shape[axis + 1 :])
            axis += 1
    return jax.ShapeDtypeStruct(shape, kind, sharding=mesh.split(count, axis))
