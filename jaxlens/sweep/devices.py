"""Which devices there are, and putting weights on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import errors
from jaxlens.sweep import environment

T = TypeVar("T")

_SHARE = 0.9
"""Of the free memory, what a step may take: buffers of the system and of others need some."""

MAX_CORES = 16
"""Devices that are made of the cores of a host, each of which needs memory for a step."""


def offer_cores() -> None:
    """Makes the host's cores visible as devices, unless JAX has started or has a number set."""
    configured = getattr(jax.config, "jax_num_cpu_devices", -1)
    if configured >= 0 or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", min(MAX_CORES, _cores()))


def choose(count: int | None) -> list[jax.Device]:
    """The first devices of this process.

    Raises:
        ConfigError: There are fewer.
    """
    devices = jax.local_devices()
    if count is not None and count > len(devices):
        raise errors.ConfigError(
            f"devices is {count}, this process has {len(devices)} {devices[0].platform} devices",
            "give fewer, or leave it out to use all",
        )
    return devices[:count]


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that each of these devices has for a step; None where the system does not say."""
    if stats := devices[0].memory_stats():
        if "bytes_limit" not in stats:
            return None
        free = [d.memory_stats()["bytes_limit"] - d.memory_stats()["bytes_in_use"] for d in devices]
        return int(_SHARE * min(free))
    available = environment.available_bytes() if devices[0].platform == "cpu" else None
    return None if available is None else int(_SHARE * available / len(devices))


def shapes(tree: T, device: jax.Device) -> T:
    """Shapes and types of arrays on a device: enough to compile for it."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def put(tree: T, device: jax.Device) -> T:
    """A copy on a device; on CPUs the same memory under another name."""

    def put_leaf(leaf: jax.Array) -> jax.Array:
        if leaf.devices() == {device}:
            return jax.device_put(leaf, device)  # committed, so that what meets it moves there
        return jax.device_put(np.asarray(leaf) if device.platform == "cpu" else leaf, device)

    return jax.tree.map(lambda leaf: put_leaf(jnp.asarray(leaf)), tree)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
