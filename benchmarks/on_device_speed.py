"""A part of `on_device.py`: the sweep and its stages here, beside what the device can do.

The stages are those of ``jaxlens bench``; they are printed one by one, the sweep before the rest,
so that what was measured counts where the time runs out.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import harness
import jax
import numpy as np

from jaxlens import config
from jaxlens.bench import counts, measure, roofline, stages
from jaxlens.files import scratch
from jaxlens.lens import numerics
from jaxlens.sweep import devices
from jaxlens.sweep.workers import compile_workers

ROUNDS = 3


@numerics.nan_is_missing()
def main() -> None:
    """Prints a line for the device, and a line a stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    time_sweep(given.shape, given.small, "tiled", "end to end")
    if harness.has_kernel():
        time_sweep(given.shape, given.small, "pallas", "with kernel")


def time_sweep(shape: str, small: bool, implementation: str, name: str) -> None:
    """One configuration: the roofs, the sweep, and of the first configuration the stages alone."""
    settings: dict[str, Any] = {"lens.precision": "bfloat16", "model.dtype": "bfloat16"}
    settings |= {"store.rows": "core", "cache": "none", "lens.implementation": implementation}
    if small:
        settings |= {"plan.length": 128, "plan.step_sequences": 2}
    # Sizes are those of the device, as for `jaxlens bench`, whose job this is.
    chosen = measure.fill_device(None if small else shape, config.load([], {}, settings))
    devices.offer_cores()
    targets = devices.choose(chosen.devices)
    with scratch.folder() as folder:
        steps = 2 * len(targets)
        job = measure.random_job(None if small else shape, chosen, ROUNDS + 1, folder)
        multiply, copied = roofline.limits(targets, chosen.lens.precision, job, ROUNDS)
        if name == "end to end":
            say_device(multiply, copied, chosen.lens.precision)
        flops = counts.count_flops(job.resolved.architecture, job.plan.length)
        step_tokens = job.resolved.step_tokens

        def say(what: str, stage: str, seconds: stages.Seconds, tokens: int) -> None:
            rate = tokens / float(np.median(seconds))
            line = {"what": what, "rate": rate, "seconds": seconds, "tokens": tokens}
            line |= {"step_tokens": step_tokens, "lens": implementation}
            print(json.dumps(line | {"of_multiply": rate * flops[stage] / multiply}), flush=True)

        with job.ingested.open() as tokens:
            workers = compile_workers(job)
            found = stages.sweep(job, tokens, workers, ROUNDS)
            say(name, "sweep", found, steps * step_tokens)
            if name == "end to end":
                alone, _ = stages.alone(job, tokens, workers, ROUNDS)
                for stage in ("forward", "lens"):
                    say(stage, stage, alone[stage], len(targets) * step_tokens)


def say_device(multiply: float, copied: float, precision: str) -> None:
    """Prints the device, the versions, and the rates of this process."""
    import jaxlib

    line = {"device": f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}"}
    line |= {"versions": {"jax": jax.__version__, "jaxlib": jaxlib.__version__}}
    line |= {"multiply_flops": multiply, "copy_bytes": copied, "precision": precision}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
