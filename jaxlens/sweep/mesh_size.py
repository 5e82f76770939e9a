"""How many devices share one copy of a model: one where it fits, else as few as hold it.

That is found out before anything is allocated, from the shapes of the weights and from the program
of the smallest step, compiled for devices of which each has its share.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import jax

from jaxlens import config as run_config
from jaxlens import errors, types
from jaxlens.models import placement
from jaxlens.sweep import batch_size, devices, resolve, step

logger = logging.getLogger("jaxlens")


def resolve_mesh(
    config: run_config.RunConfig,
    architecture: types.Architecture,
    existing_spec: Mapping[str, Any] | None = None,
) -> resolve.Resolved:
    """Fills in every default, how many devices share the model among them.

    A number that the user gave, or that the run began with, is not changed. Nor are there several
    on a CPU, whose devices have one memory.

    Args:
        config: From ``config.load``.
        architecture: Of the model.
        existing_spec: The spec of the run, if it has begun.

    Raises:
        ConfigError: As `resolve.resolve`, or no number of the devices at hand holds the model.
    """
    resolved = resolve.resolve(config, architecture, existing_spec)
    if "mesh.model" not in resolved.chosen_here:
        return resolved
    targets = devices.choose(config.devices)
    unused = devices.unused_bytes(targets)
    if unused is None:
        return resolved
    refusal = None
    for count in (n for n in range(1, len(targets) + 1) if len(targets) % n == 0):
        try:
            tried = _with_mesh(config, architecture, existing_spec, count)
            _require_fit(tried, unused)
        except batch_size.TooLarge as error:
            refusal = refusal or error
            logger.info("%s: %s", errors.count(count, "device"), error.message)
        except errors.ConfigError:
            if count == 1:
                raise
        else:
            return tried
    assert refusal is not None, "one device is always tried"
    raise refusal


def weights_bytes(resolved: resolve.Resolved, params: types.Params) -> int:
    """Bytes of the parameters and of the unembedding in tiles, on each device.

    Args:
        resolved: The configuration.
        params: Parameters, or their shapes.
    """
    params, _, tiles = batch_size.weight_shapes(resolved, params)
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape)
        * leaf.dtype.itemsize
        for leaf in jax.tree.leaves((params, tiles))
    )


def _with_mesh(
    config: run_config.RunConfig,
    architecture: types.Architecture,
    existing_spec: Mapping[str, Any] | None,
    count: int,
) -> resolve.Resolved:
    mesh = run_config.MeshConfig(count)
    return resolve.resolve(dataclasses.replace(config, mesh=mesh), architecture, existing_spec)


def _require_fit(resolved: resolve.Resolved, unused: int) -> None:
    """Refuses devices that hold not even a step of one sequence, or the one that was asked for."""
    if "plan.step_sequences" in resolved.chosen_here:
        resolved = resolved.with_step_sequences(1)
    count, dtype = resolved.model_devices, resolved.config.model.dtype
    params = placement.shapes(resolved.architecture, dtype, count)
    weights = weights_bytes(resolved, params)
    if weights >= unused:
        raise batch_size.TooLarge(
            f"the weights take {weights / 2**30:.2f} GiB on each device, "
            f"which has {unused / 2**30:.2f} GiB",
            "let more devices share the model with mesh.model, or use model.dtype=bfloat16",
        )
    group = devices.groups(resolved.config)[0]
    needed = step.scratch_bytes(batch_size.compile_step(resolved, params, group))
    limit = devices.step_bytes(unused - weights)
    assert limit is not None, "it is known how much is unused"
    if needed > limit:
        raise batch_size.too_large(needed, limit)
