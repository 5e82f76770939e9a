"""Programs of TPUs and GPUs, read after they were compiled on this machine, where none is."""

import itertools
import math
import re

import jax
import numpy as np
import pytest
from compile.programs import (
    FAMILIES,
    TARGETS,
    architecture,
    compiled,
    configure,
    lower_update,
    require,
    shapes_on,
)
from sweeps import configure as configure_run

from jaxlens import errors, schema
from jaxlens.bench import counts
from jaxlens.bench.compiled import program
from jaxlens.lens import numerics, temperature
from jaxlens.models import placement
from jaxlens.sweep import batch_size, devices, prepare, resolve
from jaxlens.tally import type_means

pytestmark = pytest.mark.compile

# MB a token and GiB beside the weights: a tenth above what versions of the lock compile to.
TOY_LIMITS = {"v5e": (1.7, 0.09), "v6e": (2.6, 0.12), "h100": (7.1, 0.9)}
GPT2_LIMITS = {"v5e": (6.2, 5.7), "v6e": (6.2, 5.7), "h100": (15.8, 5.3)}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def check(target, model, limits, expected_passes=0):
    report, works = compiled(target, model)
    bytes_moved, step_bytes = limits
    assert report.bytes_moved < bytes_moved * 1e6
    assert report.step_bytes < step_bytes * 2**30
    # The multiplies of the cost model, with the padding and what attention masks away.
    expected = counts.count_flops(architecture(model), 1024)["sweep"]
    assert 1.0 <= report.flops / expected < 1.25
    assert not [w for w in works if w.instruction.operation.startswith(COLLECTIVES)]
    settings = report.settings
    logits = 4 * (architecture(model).n_layer - 1) * settings["block"] * settings["tile"]
    innermost = max(len(work.path) for work in works)
    in_tiles = [work for work in works if len(work.path) == innermost]
    assert any(work.flops for work in in_tiles)
    # In the loop over tiles nothing but the product writes the logits of a tile to memory.
    passes = [work for work in in_tiles if not work.flops and work.written >= logits / 2]
    found = [(work.instruction.name, work.instruction.source) for work in passes]
    assert len(found) == expected_passes, found


@pytest.mark.parametrize("target", ["v5e", pytest.param("v6e", marks=pytest.mark.long), "h100"])
def test_the_step_of_a_toy_moves_little_and_fits(target):
    check(target, "toy", TOY_LIMITS[target])


FAMILY_LIMITS = {"v5e": (1.1, 0.053), "h100": (7.3, 0.162)}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param(*case, marks=[pytest.mark.long] * (case != ("v5e", "gemma3")))
        for case in itertools.product(FAMILY_LIMITS, FAMILIES)
    ],
)
def test_the_step_of_every_family_moves_little_and_fits(target, name):
    # XLA computes a tanh once, and for GPUs writes what it gives: capped logits cross the memory.
    is_capped = target == "h100" and name == "gemma2"
    limits = (10.4, 0.162) if is_capped else FAMILY_LIMITS[target]
    check(target, name, limits, expected_passes=int(is_capped))


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param(*case, marks=[pytest.mark.long] * (case != ("h100", "bfloat16")))
        for case in itertools.product(TARGETS, ("bfloat16", "float32"))
    ],
)
def test_a_vocabulary_that_needs_no_padding_compiles(target, precision):
    """As those of SmolLM2 and Gemma: compilers fuse otherwise where no bias is added."""
    report, _ = compiled(target, "unpadded", precision)
    assert report.settings["tile"] in (2048, 4096) and report.bytes_moved < 4e6


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_the_step_of_gpt2_moves_little_and_fits(target):
    check(target, "gpt2", GPT2_LIMITS[target])


# Of the toy, XLA keeps more on the chip than the kernel's blocks, which are declared as moved.
PALLAS_LIMITS = {
    ("v5e", "toy"): (2.6, 0.13),
    ("v5e", "gpt2"): (4.5, 5.7),
    ("v6e", "gpt2"): (5.7, 5.7),
}


@pytest.mark.parametrize(
    ("target", "model"),
    [
        pytest.param(*case, marks=() if "toy" in case else pytest.mark.long)
        for case in PALLAS_LIMITS
    ],
)
def test_the_step_with_the_kernel_moves_little_and_fits(target, model):
    report, works = compiled(target, model, implementation="pallas")
    bytes_moved, step_bytes = PALLAS_LIMITS[target, model]
    assert report.settings["implementation"] == "pallas"
    assert report.bytes_moved < bytes_moved * 1e6
    assert report.step_bytes < step_bytes * 2**30
    kernels = [work for work in works if "tpu_custom_call" in work.instruction.attributes]
    assert kernels
    expected = counts.count_flops(architecture(model), 1024)["sweep"]
    assert 1.0 <= report.flops / expected < 1.25


@pytest.mark.parametrize(
    ("target", "mesh", "implementation"),
    [
        ("v5e", 4, "tiled"),
        ("h100", 2, "tiled"),
        *(
            pytest.param(*how, marks=pytest.mark.long)
            for how in (("v5e", 2, "pallas"), ("v6e", 4, "tiled"), ("h100", 4, "pallas"))
        ),
    ],
)
def test_devices_that_share_a_model_have_shares_of_all_and_wait_outside_of_the_tiles(
    target, mesh, implementation
):
    one, _ = compiled(target, implementation=implementation)
    report, works = compiled(target, implementation=implementation, mesh=mesh)
    assert report.settings["mesh"] == mesh
    # The rest are norms, positions and biases that each device has.
    assert report.weights_bytes < 1.05 * one.weights_bytes / mesh
    assert report.step_bytes < one.step_bytes
    assert 1.0 <= mesh * report.flops / one.flops < 1.1
    waits = [w for w in works if w.instruction.operation.startswith(COLLECTIVES)]
    # In the loops over blocks of the model and of tokens, not in that over tiles within these.
    assert waits and all(len(work.path) <= 1 for work in waits)
    if implementation == "tiled":
        assert max(len(work.path) for work in works) == 2
    sizes = architecture("toy")
    padded = sizes.vocab_size + mesh * report.settings["tile"]
    shapes = [shape.dims for work in works for shape in work.instruction.shapes]
    tables = [dims for dims in shapes if sizes.n_embd in dims]
    held = [math.prod(dims) // sizes.n_embd for dims in tables]
    assert not [columns for columns in held if sizes.vocab_size <= columns < padded]


def test_more_devices_than_a_host_has_are_refused():
    require("v5e")
    with pytest.raises(errors.ConfigError, match=r"mesh\.model is 8, a host of TPU v5e has 4"):
        compiled("v5e", mesh=8)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_the_step_compiles_with_float32_operands(target):
    report, _ = compiled(target, "toy", "float32")
    assert report.settings["precision"] == "float32" and report.step_bytes > 0


def scatters(text):
    """Types of what the scatters of a traced program return."""
    kinds = re.findall(
        r'"stablehlo\.scatter".*?\}\) : \([^)]*\) -> (\(.*?\)|tensor<.*?>)', text, re.S
    )
    return {re.search(r"x([a-z]+\d+)>", kind)[1] for kind in kinds}


@pytest.mark.parametrize("tallies", ["basic", "study"])
def test_tpus_scatter_no_64_bit_integers(tiny, texts, tmp_path, tallies):
    job = prepare.prepare(
        configure_run(tiny, texts, None, **{"store.tallies": tallies}), tmp_path, read_only=True
    )
    assert scatters(lower_update(job, require("v5e")).as_text()) == {"i32"}
    assert "i64" in scatters(lower_update(job, require("h100")).as_text())


# Both TPUs have the same compiler.
@pytest.mark.parametrize("target", ["v5e", "h100"])
@pytest.mark.parametrize(
    ("tallies", "names"),
    [
        ("basic", None),
        pytest.param("study", None, marks=pytest.mark.long),
        pytest.param("study-3", None, marks=pytest.mark.long),
        # Of the sample that the means of token types come from.
        pytest.param("study-3", type_means.NEEDED, marks=pytest.mark.long),
    ],
)
def test_the_update_of_totals_compiles(tiny, texts, tmp_path, target, tallies, names):
    device = require(target)
    settings = configure_run(tiny, texts, None, **{"store.tallies": tallies})
    job = prepare.prepare(settings, tmp_path, read_only=True)
    with jax.enable_x64(True):
        assert lower_update(job, device, names).compile().memory_analysis()


@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_fitting_temperatures_compiles(target):
    device, sizes = require(target), architecture("toy")
    resolved = resolve.resolve(configure(), sizes, platform=device.platform)
    unembed = program.step.unembed(resolved, placement.shapes(sizes, "float32"))
    shape = (sizes.n_layer + 1, 2, 512, sizes.n_embd)
    given = (np.zeros(shape, np.float32), np.ones(shape[1:3], bool), unembed)
    points = np.ones((sizes.n_layer + 1, temperature.POINTS), np.float32)
    with numerics.matmul_precision("bfloat16"):
        lowered = temperature.slopes.lower(*shapes_on((*given, points), device), "bfloat16")
    assert lowered.compile().memory_analysis()


def test_a_step_that_a_tpu_cannot_compile_is_refused_in_one_line():
    device = require("v5e")
    x = shapes_on(jax.ShapeDtypeStruct((2**18, 128), np.float32), device)
    lowered = jax.jit(lambda x: x @ x.T).lower(x)
    refusal = pytest.raises(batch_size.TooLarge, match=r"does not fit TPU v5 lite.*15\.75")
    with refusal as refused, batch_size.compiling_for(device):
        lowered.compile()
    assert "\n" not in refused.value.message and refused.value.hint


@pytest.mark.long
def test_a_step_that_a_tpu_cannot_compile_is_halved():
    device = require("v5e")
    resolved = resolve.resolve(
        configure(**{"plan.length": 1024, "store.rows": "none"}),
        architecture("toy"),
        platform=device.platform,
    )
    # Streams of 2**23 positions alone take 28 GiB, of which a v5e has 15.75.
    resolved = resolved.with_step_sequences(2**13)
    params = placement.shapes(architecture("toy"), "bfloat16")
    fitted, compiled_step = batch_size.fit_to_group(
        resolved, params, devices.Group((device,)), None
    )
    assert fitted.step_sequences < 2**13 and compiled_step.memory_analysis()


def test_quantities_that_need_more_passes_compile(tiny):
    device = require("h100")
    more = [n for n in ("js_final", "kl_to_final", "kl_to_input", "norm") if n in schema.LAYERED]
    settings = {"plan.length": 128, "plan.step_sequences": 2, "lens.top_k": 5}
    resolved = resolve.resolve(
        configure(**settings, **{"store.quantities": more}),
        architecture("toy"),
        platform=device.platform,
    )
    params = placement.shapes(architecture("toy"), "bfloat16")
    _, compiled_step = batch_size.fit_to_group(resolved, params, devices.Group((device,)), None)
    assert compiled_step.memory_analysis()
