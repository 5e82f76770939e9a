"""How many sequences a step has: as many as fill a device, no more than its memory holds.

What a step needs is asked of the compiler before anything runs, so that no run finds out by
running out of memory. The answer stands in the spec: bits depend on the shape of a step.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax

from jaxlens import config as configs
from jaxlens import errors, types
from jaxlens.sweep import devices, resolve
from jaxlens.sweep import step as steps

logger = logging.getLogger("jaxlens")


def fit(
    config: configs.RunConfig,
    architecture: types.Architecture,
    params: types.Params,
    begun: Mapping[str, Any] | None = None,
) -> configs.RunConfig:
    """The settled configuration, its step halved until it fits each device.

    A size that was asked for, or that the run began with, is not changed; whether it fits is
    found out when it is compiled, see `lanes.make`.

    Args:
        config: From ``config.load``.
        architecture: Of the model.
        params: Its parameters, on a device.
        begun: The spec of the run, if it has begun.

    Raises:
        ConfigError: Not even one sequence fits, or see `settle.settle`.
    """
    settled = resolve.settle(config, architecture, begun)
    if config.plan.step_sequences is not None or resolve.has_shape(begun):
        return settled
    chosen = devices.choose(config.devices)
    room = devices.room(chosen)
    while room is not None:
        needed = _scratch_bytes(settled, architecture, params, chosen[0])
        sequences = settled.plan.step_sequences or 1
        if needed <= room:
            break
        if sequences == 1:
            raise too_large(needed, room)
        logger.info(
            "a step of %d sequences needs %.1f GiB of %.1f GiB a device: halved",
            *(sequences, needed / 2**30, room / 2**30),
        )
        plan = dataclasses.replace(config.plan, step_sequences=sequences // 2)
        settled = resolve.settle(dataclasses.replace(config, plan=plan), architecture, begun)
    return settled


def too_large(needed: int, room: int) -> errors.ConfigError:
    """The refusal of a step."""
    return errors.ConfigError(
        f"a step needs {needed / 2**30:.2f} GiB on each device, which has {room / 2**30:.2f} GiB",
        "lower plan.step_sequences, lens.block, plan.length or devices",
    )


def _scratch_bytes(
    config: configs.RunConfig,
    architecture: types.Architecture,
    params: types.Params,
    device: jax.Device,
) -> int:
    """Compiles the step from shapes alone; JAX keeps the result for the run itself."""
    chosen = steps.static(config, architecture)
    unembed = steps.unembed(config, architecture, params)
    weights = (params, unembed, jax.eval_shape(chosen.prepare, unembed))
    params, unembed, table = devices.shapes(weights, device)
    length, sequences = config.plan.length, config.plan.step_sequences
    batch = steps.batch_shape(length, sequences)  # type: ignore[arg-type]
    return steps.scratch_bytes(steps.lower(chosen, params, unembed, table, batch).compile())
