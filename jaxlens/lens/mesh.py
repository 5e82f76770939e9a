"""Devices that share one copy of a model, and how programs lay out arrays over them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")

AXIS = "model"
"""Name of the only axis of a mesh."""

_TYPES = (AxisType.Auto,)  # said here: what is left unsaid changed in JAX 0.12


def over(count: int) -> AbstractMesh:
    """So many devices, whichever they are."""
    return AbstractMesh((count,), (AXIS,), axis_types=_TYPES)


def of(devices: Sequence[jax.Device]) -> Mesh:
    """These devices."""
    return Mesh(np.array(devices), (AXIS,), axis_types=_TYPES)


def split(count: int, axis: int | None) -> NamedSharding:
    """A layout over so many devices: an axis is split, or each of them has all of an array."""
    spec = () if axis is None else (*[None] * axis, AXIS)
    return NamedSharding(over(count), PartitionSpec(*spec))


def context(count: int) -> contextlib.AbstractContextManager[Any]:
    """Context in which `constrain` lays out arrays over so many devices; none for one device."""
    return contextlib.nullcontext() if count == 1 else jax.sharding.use_abstract_mesh(over(count))


def constrain(tree: T, axis: int | None = None) -> T:
    """Lays out arrays over the devices of the `context`; outside of one they stay as they are.

    Args:
        tree: Pytree of arrays.
        axis: Which axis is split; without one, each device has all of every array.
    """
    here = jax.sharding.get_abstract_mesh()
    if here.empty:
        return tree
    sharding = split(here.size, axis)
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), tree)


def divides(number: int) -> bool:
    """Whether the devices of the `context` can take equal shares of so many."""
    here = jax.sharding.get_abstract_mesh()
    return here.empty or number % here.size == 0


def count(tree: Any) -> int:
    """Devices that share arrays, or will share what these shapes stand for."""
    leaves = jax.tree.leaves(tree)
    sharding = getattr(leaves[0], "sharding", None) if leaves else None
    return sharding.mesh.size if isinstance(sharding, NamedSharding) else 1
