"""What a device can do, measured in the same process, and where the stages stand below that roof.

The roofs are measured, not looked up: the rate of a plain matrix multiply and the bandwidth of a
plain copy. Nothing here knows the peaks of data sheets.

Reference: Williams, Waterman and Patterson 2009 (roofline model).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens.bench import stages
from jaxlens.bench.report import Report
from jaxlens.lens import numerics
from jaxlens.sweep.job import Job
from jaxlens.view.figures.roofline import Point, Roof

_COPIED = 2**25  # float32 numbers: far beyond any cache
_MATRICES = ((512, 512), (1024, 1024), (4096, 4608), (8192, 8192))
"""Rows and columns of the multiplies that are tried; the fastest counts."""


def limits(
    devices: Sequence[jax.Device], precision: str, job: Job, rounds: int
) -> tuple[float, float]:
    """Operations a second of a plain multiply, and bytes a second of a copy, of all devices."""
    depth = job.resolved.architecture.n_embd
    dtype = numerics.operand_dtype(precision)
    multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    copy = jax.jit(lambda x: x + 1)

    def ones(*shape: int, dtype: Any = jnp.float32) -> list[jax.Array]:
        return [jax.device_put(jnp.ones(shape, dtype), device) for device in devices]

    rates = []
    with numerics.matmul_precision(precision):
        for rows, columns in _MATRICES:
            left, right = ones(rows, depth, dtype=dtype), ones(depth, columns, dtype=dtype)
            pairs = list(zip(left, right, strict=True))
            seconds = stages.timed(lambda pairs=pairs: [multiply(*pair) for pair in pairs], rounds)
            rates.append(2.0 * rows * columns * depth * len(devices) / float(np.median(seconds)))
    arrays = ones(_COPIED)
    copied = stages.timed(lambda: [copy(array) for array in arrays], rounds)
    return max(rates), 8.0 * _COPIED * len(devices) / float(np.median(copied))


def points(reports: Sequence[Report]) -> tuple[str, list[Roof], list[Point]]:
    """Input of ``view.figures.roofline.draw``: a roof a precision, a point a stage."""
    first = reports[0]
    kind = first.environment["devices"][0]["kind"]
    if first.environment["backend"] == "cpu":
        kind = first.environment["processor"]
    title = f"{first.shape} on {first.devices} × {kind}"
    roofs, marks = {}, []
    for report in reports:
        name = str(report.settings["precision"])
        best = roofs.get(name)
        if best is None or best.flops < report.multiply_flops:
            roofs[name] = Roof(name, report.multiply_flops, report.copy_bytes)
        for stage in ("forward", "lens", "sweep"):
            flops = report.flops[stage]
            intensity = flops / report.bytes_moved[stage]
            marks.append(Point(name, stage, intensity, report.rate(stage) * flops))
    return title, list(roofs.values()), marks
