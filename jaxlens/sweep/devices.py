"""Which devices there are, and putting weights on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.lens import mesh
from jaxlens.sweep import environment

T = TypeVar("T")

_SHARE = 0.9
"""Of the free memory, what a step may take: buffers of the system and of others need some."""

MAX_CORES = 16
"""Devices that are made of the cores of a host, each of which needs memory for a step."""


@dataclass(frozen=True)
class Group:
    """Devices that share one copy of a model; most often a single one."""

    devices: tuple[jax.Device, ...]

    @property
    def lead(self) -> jax.Device:
        """The device that holds what the group has once, such as totals."""
        return self.devices[0]

    def sharding(self, leaf: Any) -> Sharding:
        """How an array lies on these devices: split as it is split elsewhere, or whole on each."""
        if len(self.devices) == 1:
            return SingleDeviceSharding(self.lead)
        elsewhere = getattr(leaf, "sharding", None)
        spec = elsewhere.spec if isinstance(elsewhere, NamedSharding) else PartitionSpec()
        return NamedSharding(mesh.of(self.devices), spec)

    def shapes(self, tree: T) -> T:
        """Shapes and types of arrays on these devices: enough to compile for them."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.sharding(leaf)),
            tree,
        )

    def put(self, tree: T) -> T:
        """A copy on these devices; on CPUs the same memory under another name.

        An array that is in the tree twice, such as a tied unembedding, is there once.
        """
        placed: dict[int, Any] = {}

        def put_leaf(leaf: Any) -> Any:
            if id(leaf) not in placed:
                placed[id(leaf)] = leaf, self._put(jnp.asarray(leaf))
            return placed[id(leaf)][1]

        return jax.tree.map(put_leaf, tree)

    def lead_of(self, tree: T) -> T:
        """What the leading device holds of arrays that all of the group hold whole."""
        if len(self.devices) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def _put(self, leaf: jax.Array) -> jax.Array:
        sharding = self.sharding(leaf)
        if leaf.sharding.device_set == sharding.device_set:
            return jax.device_put(leaf, sharding)  # committed, so that what meets it moves there
        if isinstance(leaf.sharding, NamedSharding) and len(self.devices) > 1:
            shares = [shard.data for shard in leaf.addressable_shards]
            moved = [_move(one, to) for one, to in zip(shares, self.devices, strict=True)]
            return jax.make_array_from_single_device_arrays(leaf.shape, sharding, moved)
        return _move(leaf, sharding)


def _move(leaf: jax.Array, to: jax.Device | Sharding) -> jax.Array:
    on_cpu = next(iter(leaf.devices())).platform == "cpu"
    return jax.device_put(np.asarray(leaf) if on_cpu else leaf, to)


def offer_cores() -> None:
    """Makes the host's cores visible as devices, unless JAX has started or has a number set."""
    configured = getattr(jax.config, "jax_num_cpu_devices", -1)
    if configured >= 0 or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", min(MAX_CORES, environment.cores()))


def choose(count: int | None) -> list[jax.Device]:
    """The first devices of this process.

    Raises:
        ConfigError: There are fewer.
    """
    devices = jax.local_devices()
    if count is not None and count > len(devices):
        have = errors.count(len(devices), f"{devices[0].platform} device")
        raise errors.ConfigError(
            f"devices is {count}, and this process has {have}",
            "give fewer, or leave it out to use all",
        )
    return devices[:count]


def groups(config: RunConfig) -> list[Group]:
    """The devices of a run, as many in each group as share a model.

    Raises:
        ConfigError: There are fewer, or some would be left over.
    """
    size = config.mesh.model or 1
    _require_group(jax.local_devices(), size)
    devices = choose(config.devices)
    _require_group(devices, size)
    if len(devices) % size:
        have = errors.count(len(devices), f"{devices[0].platform} device")
        raise errors.ConfigError(
            f"mesh.model is {size}, which does not divide the {have} of this process",
            f"--set devices={len(devices) // size * size} leaves the others unused; a new run may "
            "take a divisor",
        )
    return [Group(tuple(devices[i : i + size])) for i in range(0, len(devices), size)]


def _require_group(devices: Sequence[jax.Device], size: int) -> None:
    """Refuses fewer devices than share a model."""
    if size <= len(devices):
        return
    have = errors.count(len(devices), f"{devices[0].platform} device")
    raise errors.ConfigError(
        f"mesh.model is {size}, more than the {have} of this process",
        f"a run that has begun needs {size} or a multiple; a new one may take {len(devices)}",
    )


def unused_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that nothing has taken on each of some accelerators; None where they do not say."""
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in one for one in stats):
        return None
    return min(one["bytes_limit"] - one["bytes_in_use"] for one in stats)


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that each of these devices has for a step; None where the system does not say."""
    if devices[0].memory_stats():
        return step_bytes(unused_bytes(devices))
    available = environment.available_bytes() if devices[0].platform == "cpu" else None
    return None if available is None else int(_SHARE * available / len(devices))


def step_bytes(unused: int | None) -> int | None:
    """Of the bytes that nothing has taken, what a step may take."""
    return None if unused is None else int(_SHARE * unused)


def put(tree: T, device: jax.Device) -> T:
    """A copy on one device, see `Group.put`."""
    return Group((device,)).put(tree)
