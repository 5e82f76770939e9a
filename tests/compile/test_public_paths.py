"""The programs of every public path beside the sweep's step, compiled for TPUs and GPUs.

Each function returns what traces a program, and the shapes that it is given.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from compile.programs import TARGETS, architecture, require, shapes_on

from jaxlens import models, types
from jaxlens.api import lens as api_lens
from jaxlens.api.prompts import read_prompts
from jaxlens.lens import identity, numerics, options, temperature, unembedding
from jaxlens.models import loading, placement
from jaxlens.store import probe_file
from jaxlens.sweep import temperatures
from jaxlens.sweep.ablation import compute as ablation
from jaxlens.sweep.ablation import mean
from jaxlens.sweep.probe import evaluate, moments, work

pytestmark = pytest.mark.compile

SIZES = architecture("toy")
LAYERS, EMBED, VOCAB = SIZES.n_layer + 1, SIZES.n_embd, SIZES.vocab_size
LINES, LENGTH = 2, 256
CLASSES = 300


def shape(*sizes, dtype="float32"):
    return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype))


def shapes_of(tree):
    return jax.tree.map(lambda x: shape(*x.shape, dtype=x.dtype), tree)


whole = functools.partial(shape, dtype="int32")
GRID, MASK = whole(LINES, LENGTH), shape(LINES, LENGTH, dtype="bool")
STREAMS = shape(LAYERS, LINES, LENGTH, EMBED)
TEMPERATURES = shape(LAYERS)


def params(precision):
    """Weights in the type that is used with a precision."""
    return placement.shapes(SIZES, precision)


def unembed(precision, **changes):
    def make(params):
        return models.unembed(params, SIZES, "final_norm").replace(**changes)

    return jax.eval_shape(make, params(precision))


def known(lines, length, follow=None):
    grid = whole(lines, length)
    return types.References(grid, grid, grid, grid, shape(lines, length, dtype="bool"), follow)


def forward(precision):
    """``residuals`` and ``show``, of all positions."""
    return loading._forward.lower, (params(precision), SIZES, GRID)


def rows_of_prompts(precision):
    """``prompts``: the streams of the positions that are asked for."""
    given = params(precision), SIZES, GRID, whole(64), whole(64)
    return read_prompts._residuals_at.lower, given


def lens_of_prompts(precision):
    """``prompts``: the lens of rows, with the answers as followed tokens."""
    head = unembed(precision, temperature=TEMPERATURES)
    request = options.Options(
        (*options.resolve_quantities("full"), "rank_follow", "logp_follow"), None, 5, precision
    )
    tiled = jax.eval_shape(lambda head: unembedding.tile_unembedding(head, request), head)
    rows = known(64, 1, whole(64, 1, 3))
    return read_prompts._lens.lower, (shape(LAYERS, 64, 1, EMBED), head, rows, request, tiled)


def read_lens(implementation, precision):
    """``read_lens`` and ``show``: all quantities of one prompt."""
    head = unembed(precision, temperature=TEMPERATURES)
    request = options.Options(options.resolve_quantities("full"), None, 5, precision)
    return api_lens._read.lower, (implementation, STREAMS, head, known(LINES, LENGTH), request)


def log_probs(precision):
    return api_lens._distribution.lower, (STREAMS, unembed(precision), whole())


def tiles(precision):
    """The unembedding in tiles, once a run."""
    request = options.Options(("rank_input",), precision=precision)
    return unembedding.tile_unembedding.lower, (unembed(precision), request)


def identity_gate(precision):
    """The check of the lens at the start of a run."""
    read = shape(1, 1, 64), shape(1, 1, 64, 256), shape(1, 1, 64, 1)
    given = *read, shape(LAYERS, 1, 64, EMBED), unembed(precision), whole(1, 64, 257)
    return identity._difference.lower, given


def slopes(precision):
    """``temperatures`` of a run, from tokens."""
    points = shape(LAYERS, temperature.POINTS)
    given = SIZES, precision, params(precision), unembed(precision), GRID, MASK, points
    return temperatures._slopes.lower, given


def probe_streams(precision):
    return work._streams.lower, (SIZES, params(precision), GRID, GRID, GRID)


def scale(layers):
    return moments.Scale(shape(layers, EMBED), shape(layers))


def probe_moments(precision):
    totals = shapes_of(moments.zeros(2, CLASSES, EMBED))
    size = moments.blocks(LINES * LENGTH)[1]
    label = whole(len(probe_file.TARGETS), size)
    streams = shape(2, LINES, LENGTH, EMBED)
    return moments._add.lower, (totals, streams, scale(2), whole(size), label, whole())


def probe_evaluation(precision):
    n_targets, size = len(probe_file.TARGETS), moments.blocks(LINES * LENGTH)[1]
    weight = shape(2, n_targets, CLASSES, EMBED)
    head = unembed(precision)
    head = head.replace(weight=shape(CLASSES, EMBED), embedding=None)
    readers = evaluate.Readers(weight, shape(2, n_targets, CLASSES), scale(2), whole(2), head)
    rows = whole(n_targets, size)
    totals = shapes_of(evaluate.zeros(2))
    given = totals, STREAMS, readers, whole(size), rows, rows, whole(size), whole(), precision
    return evaluate._add.lower, given


def ablation_runs(precision):
    """``ablate``: patched and clean runs of one shape."""
    lines, targets, directions = 4, 32, 2
    at = whole(lines, targets)
    runs = ablation.Runs(
        tokens=whole(lines, LENGTH),
        source=at,
        present=shape(lines, targets, dtype="bool"),
        basis=shape(lines, targets, directions, EMBED),
        complement=shape(lines, dtype="bool"),
        shift=shape(lines, targets, EMBED),
        layer=whole(lines),
        read=at,
        copied=at,
    )
    compiled_for = ablation.Program(SIZES, "float32", precision)
    given = compiled_for, params(precision), unembed(precision), runs, shape(LAYERS, EMBED)
    return ablation._read.lower, given


def ablation_mean(precision):
    """``ablate``: the mean stream that takes the place of what is removed."""
    compiled_for = ablation.Program(SIZES, "float32", precision)
    return mean._sum_streams.lower, (compiled_for, params(precision), GRID, MASK)


PROGRAMS = {
    "residuals": forward,
    "rows of prompts": rows_of_prompts,
    "lens of prompts": lens_of_prompts,
    "read_lens": functools.partial(read_lens, "tiled"),
    "read_lens reference": functools.partial(read_lens, "reference"),
    "log_probs": log_probs,
    "tiles": tiles,
    "identity gate": identity_gate,
    "temperatures": slopes,
    "probe streams": probe_streams,
    "probe moments": probe_moments,
    "probe evaluation": probe_evaluation,
    "ablation": ablation_runs,
    "ablation mean": ablation_mean,
}
WIDE = ("probe moments", "probe evaluation")


# What says most for the seconds that it takes; forward pass and lens are compiled with the step.
SHORT = {
    "h100": tuple(n for n in PROGRAMS if n not in ("residuals", "temperatures", "probe streams")),
    "v5e": ("rows of prompts", "probe moments", "probe evaluation", "ablation mean"),
    "v6e": (),
}
CASES = [
    pytest.param(
        name,
        target,
        precision,
        marks=() if precision == "bfloat16" and name in SHORT[target] else pytest.mark.long,
    )
    for name, target, precision in itertools.product(PROGRAMS, TARGETS, ("bfloat16", "float32"))
]


@pytest.mark.parametrize(("name", "target", "precision"), CASES)
def test_its_program_compiles(name, target, precision):
    device = require(target)
    lower, given = PROGRAMS[name](precision)

    def place(x):
        return shapes_on(x, device) if isinstance(x, jax.ShapeDtypeStruct) else x

    with jax.enable_x64(name in WIDE), numerics.matmul_precision(precision):
        compiled = lower(*jax.tree.map(place, given)).compile()
    assert compiled.memory_analysis().output_size_in_bytes > 0
