"""How many sequences a step has: as many as fill a device, no more than its memory holds.

What a step needs is asked of the compiler before anything runs, so that no run finds out by
running out of memory. The answer stands in the spec: bits depend on the shape of a step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import jax

from jaxlens import errors, types
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
    return fit_to_device(resolved, params, targets[0], limit)[0]


def fit_to_device(
    resolved: resolve.Resolved, params: types.Params, device: jax.Device, limit: int | None
) -> tuple[resolve.Resolved, jax.stages.Compiled]:
    """Halves the step until it fits a device, which need not be here.

    Args:
        resolved: Its step as large as the device likes.
        params: Parameters of the model, or their shapes.
        device: Device to compile for.
        limit: Bytes that a step may take beside the weights; None where only the compiler knows.

    Returns:
        The configuration that fits, and its compiled step.

    Raises:
        TooLarge: Not even one sequence fits.
    """
    while True:
        try:
            compiled = _compile(resolved, params, device)
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
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if device.platform == "cpu" or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = " ".join(str(error).split()).removeprefix("RESOURCE_EXHAUSTED: ")
        raise TooLarge(
            f"a step does not fit {device.device_kind}: {said[:_SAID]}", _HINT
        ) from error


def _compile(
    resolved: resolve.Resolved, params: types.Params, device: jax.Device
) -> jax.stages.Compiled:
    """Compiles the step from shapes alone; JAX keeps the result for the run itself."""
    config = step.step_config(resolved)
    unembed = step.unembed(resolved, params)
    weights = (params, unembed, jax.eval_shape(config.tile_unembedding, unembed))
    params, unembed, tiled = devices.shapes(weights, device)
    batch = step.batch_shape(resolved.length, resolved.step_sequences)
    with compiling_for(device):
        return step.lower(config, params, unembed, tiled, batch).compile()
