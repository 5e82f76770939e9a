"""Programs for accelerators that are not here, compiled once for all tests."""

import functools

import jax
import numpy as np
import pytest

from jaxlens import config, errors, models
from jaxlens.bench import random_model
from jaxlens.bench.compiled import hlo, program, targets, traffic
from jaxlens.sweep import devices
from jaxlens.sweep import step as steps
from jaxlens.tally import definitions, update

TARGETS = ("v5e", "v6e", "h100")
TOY = {"n_layer": 6, "n_head": 4, "n_embd": 128, "n_positions": 1024, "vocab_size": 50257}


def architecture(model):
    if model == "toy":
        return models.parse({"model_type": "gpt2", "bos_token_id": None} | TOY)
    return random_model.architecture(model)


def configure(**settings):
    """Operands and weights as accelerators multiply them fastest."""
    narrow = {"lens.precision": "bfloat16", "model.dtype": "bfloat16", "store.rows": "core"}
    return config.load([], {}, narrow | settings)


def require(target):
    """The device of a target; the test is skipped where its compiler is not installed."""
    try:
        return targets.device(targets.require(target))
    except errors.MissingError as error:
        pytest.skip(f"{error.message}: run make test-compile")


@functools.cache
def compiled(target, model="toy", precision="bfloat16", implementation="tiled", mesh=1):
    """What ``bench --compile-only`` says of a step, and the work of its program."""
    require(target)
    settings = {"lens.precision": precision, "plan.length": 1024}
    settings |= {"lens.implementation": implementation, "mesh.model": mesh}
    if model == "toy":
        settings["plan.step_sequences"] = 4
    report, text = program.compile_step(model, architecture(model), configure(**settings), target)
    return report, traffic.count(hlo.parse(text))


def shapes_on(tree, device):
    """Shapes and types of arrays on a device."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    return devices.Group((device,)).shapes(shapes)


def lower_update(job, device, names=None):
    """The update of a sweep's totals, or of some, traced for a device."""
    sizes = job.resolved.architecture
    tallies = definitions.TALLIES[job.config.store.tallies]
    if names is not None:
        tallies = tuple(definitions.BY_NAME[name] for name in names)
    batch = steps.batch_shape(job.plan.length, job.plan.step_sequences)
    weights = (job.model.params, job.unembed, job.tiles)
    values, _ = steps.lower(job.step_config, *shapes_on(weights, jax.devices()[0]), batch).out_info
    totals = update.shapes(tallies, sizes.n_layer + 1, sizes.vocab_size)
    with update.wide():
        given = (totals, values | job.tally_shapes(), np.int32(0), job.lookup())
        return update._update.lower(tallies, *shapes_on(given, device))
