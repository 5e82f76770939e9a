"""The step of a sweep, compiled from shapes alone for devices that are not here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from jaxlens import config as run_config
from jaxlens import types
from jaxlens.bench import counts
from jaxlens.bench.compiled import hlo, targets, traffic
from jaxlens.models import placement
from jaxlens.sweep import batch_size, devices, mesh_size, resolve, step

_SHARE = 0.9
"""Of the memory beside the weights, what a step may take, as in `devices.free_bytes`."""


@dataclass(frozen=True)
class Compiled:
    """What a step needs, moves and computes on each device, by its compiled program.

    Where devices share a model, bytes and operations are those of one of them, and what they tell
    each other is not counted.

    Attributes:
        model: Name of the model.
        target: Name of the target.
        settings: Length, sequences, lens, precision, types, tile and block.
        is_largest: Whether the step is the largest that fits, and not what was asked for.
        weights_bytes: Of the parameters and the unembedding in tiles.
        step_bytes: Of the device's memory beside them.
        bytes_moved: Bytes a token that the program reads and writes in the device's memory.
        flops: Operations of multiplies a token.
        is_flops_stated: Whether the program states them; else they are those of the cost model,
            since a kernel for a GPU does not say what it does.
        memory_bound: Tokens a second that the bandwidth of the target allows.
        compute_bound: Tokens a second that its multiplies allow, with bfloat16 operands.
        compile_seconds: Of all steps that were tried.
        versions: Of jax and of the compiler's packages.
    """

    model: str
    target: str
    settings: dict[str, Any]
    is_largest: bool
    weights_bytes: int
    step_bytes: int
    bytes_moved: float
    flops: float
    is_flops_stated: bool
    memory_bound: float
    compute_bound: float
    compile_seconds: float
    versions: dict[str, str]


def compile_step(
    model: str, architecture: types.Architecture, config: run_config.RunConfig, name: str
) -> tuple[Compiled, str]:
    """Compiles the largest step that fits a target, or the one that was asked for.

    Args:
        model: Name of the model.
        architecture: Its sizes.
        config: Its corpus and its output do not matter.
        name: Of the target.

    Returns:
        What the compiler says, and the text of the optimised program.

    Raises:
        ConfigError: The step does not fit.
        MissingError: The compiler of the target is not installed, or an assembler that it needs.
    """
    target = targets.require(name)
    count = config.mesh.model or 1
    group = devices.Group(targets.devices(target, count))
    resolved = resolve.resolve(config, architecture, platform=group.lead.platform)
    params = placement.shapes(architecture, config.model.dtype, count)
    weights = mesh_size.weights_bytes(resolved, params)
    limit = int(_SHARE * max(0, target.memory - weights))
    began = time.perf_counter()
    with targets.assembling(target):
        resolved, compiled = batch_size.fit_to_group(resolved, params, group, limit)
    seconds = time.perf_counter() - began
    text = compiled.as_text() or ""
    works = traffic.count(hlo.parse(text))
    moved = traffic.moved(works) / resolved.step_tokens
    is_stated = traffic.states_flops(works)
    flops = traffic.flops(works) / resolved.step_tokens
    if not is_stated:
        flops = counts.count_flops(architecture, resolved.length)["sweep"] / count
    report = Compiled(
        model=model,
        target=name,
        settings=_settings(resolved),
        is_largest="plan.step_sequences" in resolved.chosen_here,
        weights_bytes=weights,
        step_bytes=step.scratch_bytes(compiled),
        bytes_moved=moved,
        flops=flops,
        is_flops_stated=is_stated,
        memory_bound=target.bandwidth / moved,
        compute_bound=target.flops / flops,
        compile_seconds=seconds,
        versions=targets.versions(target),
    )
    return report, text


def _settings(resolved: resolve.Resolved) -> dict[str, Any]:
    config = resolved.config
    return {
        "length": resolved.length,
        "step_sequences": resolved.step_sequences,
        "implementation": config.lens.implementation,
        "precision": config.lens.precision,
        "dtype": config.model.dtype,
        "residuals": config.lens.residuals,
        "tile": config.lens.tile,
        "block": config.lens.block,
        **({"mesh": config.mesh.model} if config.mesh.model != 1 else {}),
        "rows": config.store.rows,
    }
