"""jaxlens, as a sweep computes a step: residuals and tiled lens in one compiled function.

python benchmarks/peers/run_jaxlens.py --model FOLDER --out FILE.npz [--tokens 256]
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import case
import measure
import numpy as np


def prepare(given: argparse.Namespace) -> tuple[measure.Work, dict[str, Any]]:
    """Loads the model, lays out the table; returns the work."""
    os.environ["JAX_PLATFORMS"] = given.device
    import jax
    import jax.numpy as jnp

    import jaxlens
    from jaxlens import devices, environment, numerics, types
    from jaxlens.lens import tables, tiled
    from jaxlens.lens.options import Options
    from jaxlens.models import gpt2

    devices.offer_cores()
    model = jaxlens.load_model(given.model, dtype=given.precision)
    options = Options(case.QUANTITIES, None, 1, given.precision)
    unembed = gpt2.unembed(model.params, model.config)
    table = jax.jit(tables.prepare, static_argnums=1)(unembed, options)
    # As a sweep has it: lines go to the devices in turn, on CPUs one a core.
    lines = max(1, given.tokens // min(given.length, model.config.n_positions))
    places = devices.choose(min(lines, len(jax.local_devices())))
    weights = [devices.place((model.params, table), place) for place in places]

    environment.release_memory()  # as a sweep does once it is compiled

    @jax.jit
    def step(params: types.Params, table: tables.Table, known: types.References) -> types.Readout:
        unembed = gpt2.unembed(params, model.config)
        streams = gpt2.residuals(params, model.config, known.input)
        return tiled.read(streams, unembed, known, options, table)

    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        readouts = []
        cut = zip(
            np.array_split(tokens, len(places)),
            np.array_split(following, len(places)),
            weights,
            strict=True,
        )
        with numerics.matmul_precision(given.precision):
            for ids, after, mine in cut:
                absent = jnp.full(ids.shape, -1)
                known = types.References(ids, after, absent, absent, jnp.ones(ids.shape, bool))
                readouts.append(step(*mine, jax.device_put(known, mine[1].weight.sharding)))
        parts = [jax.device_get(readout.present()) for readout in readouts]
        found = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
        return found | {"top_id": found["top_id"][..., 0]}

    return work, {
        "threads": os.cpu_count(),
        "precision": given.precision,
        "devices": len(places),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--precision``."""
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")


if __name__ == "__main__":
    measure.main(("jaxlens-logitlens", "jax", "jaxlib", "numpy"), prepare, add_options)
