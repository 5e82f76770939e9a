"""How many sequences a step has: as many as fill a device, no more than its memory holds.

What a step needs is asked of the compiler before anything runs, so that no run finds out by
running out of memory. The answer stands in the spec: bits depend on the shape of a step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax

from jaxlens import errors, types
from jaxlens.lens import mesh
from jaxlens.sweep import devices, resolve, step

logger = logging.getLogger("jaxlens")

_HINT = "lower plan.step_sequences, lens.block, plan.length or devices"
_SAID = 160  # characters of a compiler's message, which goes on with all its buffers


class TooLarge(errors.ConfigError):
    """A step does not fit a device (exit 2)."""


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
    if limit is None and targets[0].platform == "cpu":
        return resolved
    return fit_to_group(resolved, params, devices.groups(resolved.config)[0], limit)[0]


def fit_to_group(
    resolved: resolve.Resolved, params: types.Params, group: devices.Group, limit: int | None
) -> tuple[resolve.Resolved, jax.stages.Compiled]:
    """Halves the step until it fits the devices that share a model, which need not be here.

    Args:
        resolved: Its step as large as the device likes.
        params: Parameters of the model, or their shapes.
        group: Devices to compile for, as many as the configuration says.
        limit: Bytes of each that a step may take beside the weights; None where only the compiler
            knows.

    Returns:
        The configuration that fits, and its compiled step.

    Raises:
        TooLarge: Not even one sequence fits.
    """
    while True:
        try:
            compiled = compile_step(resolved, params, group)
            needed = step.scratch_bytes(compiled)
            if limit is None or needed <= limit:
                return resolved, compiled
            refusal = too_large(needed, limit)
        except TooLarge as error:
            refusal = error
        if resolved.step_sequences == 1:
            raise refusal
        logger.info(
            "a step of %d sequences is halved: %s", resolved.step_sequences, refusal.message
        )
        resolved = resolved.with_step_sequences(resolved.step_sequences // 2)


def too_large(needed: int, limit: int) -> TooLarge:
    """The refusal of a step, in bytes."""
    return TooLarge(
        f"a step needs {needed / 2**30:.2f} GiB on each device, which has {limit / 2**30:.2f} GiB",
        _HINT,
    )


@contextlib.contextmanager
def compiling_for(device: jax.Device) -> Iterator[None]:
    """Context in which a program is compiled for an accelerator whose memory may not hold it.

    The compilers of TPUs find that out by themselves. On CPUs it is the host that lacks memory,
    which `files.memory` reports.

    Raises:
        TooLarge: It does not fit, in the compiler's words.
        JaxlensError: The compiler fails at it.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if device.platform == "cpu":
            raise
        kind, said = device.device_kind, " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in said:
            said = said.removeprefix("RESOURCE_EXHAUSTED: ")
            raise TooLarge(f"a step does not fit {kind}: {said[:_SAID]}", _HINT) from error
        raise errors.JaxlensError(
            f"the compiler of {kind} fails at this step: {said[:_SAID]}",
            "another shape may compile: --set lens.tile=... or lens.block=..., or --precision; "
            "please report it with what jaxlens env prints",
        ) from error


def compile_step(
    resolved: resolve.Resolved, params: types.Params, group: devices.Group
) -> jax.stages.Compiled:
    """Compiles the step from shapes alone; JAX keeps the result for the run itself.

    Raises:
        TooLarge: The compiler finds that it does not fit.
    """
    shapes = group.shapes((*weight_shapes(resolved, params), _batch(resolved)))
    with compiling_for(group.lead):
        return step.lower(step.step_config(resolved), *shapes).compile()


def weight_shapes(
    resolved: resolve.Resolved, params: types.Params
) -> tuple[types.Params, types.Unembed, Any]:
    """Shapes and layouts of parameters, unembedding and its tiles.

    Args:
        resolved: The configuration.
        params: Parameters, or their shapes.
    """
    config, unembed = step.step_config(resolved), step.unembed(resolved, params)
    tiles = jax.eval_shape(config.tile_unembedding, unembed)
    if resolved.model_devices > 1:
        split = mesh.split(resolved.model_devices, 0)
        tiles = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), tiles
        )
    return params, unembed, tiles


def _batch(resolved: resolve.Resolved) -> types.Step:
    return step.batch_shape(resolved.length, resolved.step_sequences)
