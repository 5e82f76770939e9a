"""How many sequences a step has: as many as fill a device, no more than its memory holds.

What a step needs is asked of the compiler before anything runs, so that no run finds out by
running out of memory. The answer stands in the spec: bits depend on the shape of a step.
"""

from __future__ import annotations

import logging

import jax

from jaxlens import errors, types
from jaxlens.sweep import devices, resolve, step

logger = logging.getLogger("jaxlens")


def fit_batch_to_memory(resolved: resolve.Resolved, params: types.Params) -> resolve.Resolved:
    """Halves the step until it fits each device.

    A size that the user gave, or that the run began with, is not changed; whether it fits is
    found out when it is compiled, see `workers.compile_workers`.

    Args:
        resolved: Its step as large as a device likes.
        params: Parameters of the model, on a device.

    Raises:
        ConfigError: Not even one sequence fits.
    """
    if "plan.step_sequences" not in resolved.chosen_here:
        return resolved
    targets = devices.choose(resolved.config.devices)
    limit = devices.free_bytes(targets)
    while limit is not None:
        needed = _scratch_bytes(resolved, params, targets[0])
        if needed <= limit:
            break
        if resolved.step_sequences == 1:
            raise too_large(needed, limit)
        logger.info(
            "a step of %d sequences needs %.1f GiB of %.1f GiB a device: halved",
            *(resolved.step_sequences, needed / 2**30, limit / 2**30),
        )
        resolved = resolved.with_step_sequences(resolved.step_sequences // 2)
    return resolved


def too_large(needed: int, limit: int) -> errors.ConfigError:
    """The refusal of a step, in bytes."""
    return errors.ConfigError(
        f"a step needs {needed / 2**30:.2f} GiB on each device, which has {limit / 2**30:.2f} GiB",
        "lower plan.step_sequences, lens.block, plan.length or devices",
    )


def _scratch_bytes(resolved: resolve.Resolved, params: types.Params, device: jax.Device) -> int:
    """Compiles the step from shapes alone; JAX keeps the result for the run itself."""
    config = step.step_config(resolved)
    unembed = step.unembed(resolved, params)
    weights = (params, unembed, jax.eval_shape(config.tile_unembedding, unembed))
    params, unembed, tiled = devices.shapes(weights, device)
    batch = step.batch_shape(resolved.length, resolved.step_sequences)
    return step.scratch_bytes(step.lower(config, params, unembed, tiled, batch).compile())
