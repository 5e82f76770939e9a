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
_SIZES = {
    **{"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 512, "max_position_embeddings": 1024},
    "vocab_size": 50257,
}
_GEMMA = {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 256}
FAMILIES = {
    "llama": {"model_type": "llama", **_SIZES},
    "qwen3": {"model_type": "qwen3", **_SIZES, "head_dim": 64},
    "olmo2": {"model_type": "olmo2", **_SIZES},
    "gpt_neox": {"model_type": "gpt_neox", **_SIZES, "rotary_pct": 0.25},
    "gemma2": {
        **{"model_type": "gemma2", **_SIZES, **_GEMMA},
        **{"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    },
    "gemma3": {"model_type": "gemma3_text", **_SIZES, **_GEMMA, "sliding_window_pattern": 3},
}
"""Toys of the other families: grouped queries, windows, norms of queries and keys, caps."""


def architecture(model):
    if model == "toy":
        return models.parse({"model_type": "gpt2", "bos_token_id": None} | TOY)
    if model == "unpadded":
        return models.parse(
            {"model_type": "gpt2", "bos_token_id": None} | TOY | {"vocab_size": 8192}
        )
    if model in FAMILIES:
        return models.parse(FAMILIES[model])
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
    if model in ("toy", "unpadded", *FAMILIES):
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
