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

from jaxlens.models import loading


def prepare(given: argparse.Namespace) -> tuple[measure.Work, dict[str, Any]]:
    """Loads the model, lays out the table; returns the work."""
    os.environ["JAX_PLATFORMS"] = given.device
    import jax

    from jaxlens import models, types
    from jaxlens.lens import numerics, tiled, unembedding
    from jaxlens.lens.options import Options
    from jaxlens.sweep import devices, environment
    from jaxlens.sweep import step as steps

    devices.offer_cores()
    model = loading.from_checkpoint(loading.load_checkpoint(given.model), given.precision)
    options = Options(case.QUANTITIES, None, 1, given.precision)

    @jax.jit
    def step(
        params: types.Params, table: unembedding.TiledUnembedding, known: types.References
    ) -> types.Readout:
        unembed = models.unembed(params, model.config)
        streams = models.residuals(params, model.config, known.input)
        return tiled.read(streams, unembed, known, options, table)

    # As a sweep does: lines go to the devices in turn, on CPUs one a core, and each has its step
    # compiled from shapes before there is anything else in memory.
    length = min(given.tokens, given.length, model.config.n_positions)
    lines = np.array_split(np.arange(given.tokens // length), len(jax.local_devices()))
    places = [p for p, mine in zip(jax.local_devices(), lines, strict=True) if len(mine)]
    unembed = models.unembed(model.params, model.config)
    shape = jax.eval_shape(lambda: unembedding.tile_unembedding(unembed, options))
    compiled = []
    with numerics.matmul_precision(given.precision):
        for place, mine in zip(places, lines, strict=False):
            known = steps.batch_shape(length, len(mine)).references
            here = devices.Group((place,)).shapes((model.params, shape, known))
            compiled.append(step.lower(*here).compile())
    environment.release_memory()
    table = unembedding.tile_unembedding(unembed, options)
    weights = [devices.put((model.params, table), place) for place in places]
    request = Options((), None, 1, given.precision)
    loading.check_identity(model, request=request, tiles=table)
    environment.release_memory()

    def work(tokens: np.ndarray, following: np.ndarray) -> dict[str, np.ndarray]:
        readouts = []
        cut = zip(
            places,
            np.array_split(tokens, len(places)),
            np.array_split(following, len(places)),
            compiled,
            weights,
            strict=True,
        )
        for place, ids, after, run, mine in cut:
            absent = np.full(ids.shape, -1, np.int32)
            mask = np.ones(ids.shape, bool)
            known = types.References(*jax.device_put((ids, after, absent, absent, mask), place))
            readouts.append(run(*mine, known))
        parts = [jax.device_get(readout.present()) for readout in readouts]
        found = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
        return found | {"top_id": found["top_id"][..., 0]}

    return work, {
        "threads": len(os.sched_getaffinity(0)),
        "precision": given.precision,
        "devices": len(places),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--precision``."""
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")


if __name__ == "__main__":
    measure.main(("jaxlens-logitlens", "jax", "jaxlib", "numpy"), prepare, add_options)
