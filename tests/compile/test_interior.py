"""The kernels of the interior layers, compiled beside what XLA makes of these layers."""

import functools
import math
import re

import jax
import pytest
from compile.programs import require, shapes_on

from jaxlens import types
from jaxlens.bench.compiled import hlo, traffic
from jaxlens.lens import interior, numerics, online, options, tiled, tuning, unembedding
from jaxlens.lens.kernels import hopper, tpu
from jaxlens.lens.options import Options

pytestmark = pytest.mark.compile

TOKENS, REFERENCES, VOCAB = 256, 5, 50257
GPT2 = 12, 768
LARGEST = 48, 1600


def shapes(n_layer, embed, dtype, platform):
    """Shapes of what `interior.read` takes, of one block of a model."""
    layers = n_layer - 1
    tile = tuning.choose_tile(VOCAB, n_layer, platform)
    n_tiles = -(-VOCAB // tile)
    shape = lambda *sizes, dtype="float32": jax.ShapeDtypeStruct(sizes, dtype)  # noqa: E731
    end = jax.eval_shape(functools.partial(online.start, 2, TOKENS, REFERENCES, 1, True))
    tiles = unembedding.TiledUnembedding(
        shape(n_tiles, tile, embed, dtype=dtype), shape(n_tiles, tile), VOCAB
    )
    return (
        shape(layers, TOKENS, embed, dtype=dtype),
        shape(layers, TOKENS, REFERENCES),
        shape(TOKENS, REFERENCES, dtype="int32"),
        shape(2, TOKENS, n_tiles * tile),
        end,
        tiles,
        shape(layers),
    )


def compile_block(read, target, model, precision, top_k=1):
    request = Options(("kl_final_matched",), top_k=top_k, precision=precision)
    with numerics.matmul_precision(precision):
        device = require(target)
        given = shapes(*model, numerics.operand_dtype(precision), device.platform)
        given = shapes_on(given, device)
        compiled = jax.jit(functools.partial(read, options=request)).lower(*given).compile()
    memory = compiled.memory_analysis()
    moved = traffic.moved(traffic.count(hlo.parse(compiled.as_text()))) / TOKENS
    return compiled.as_text(), moved, memory.peak_memory_in_bytes


# MB a token: the end layers' logits once (0.41) and the unembedding once a block (0.31, in float32
# 0.61); XLA's program moves 1.15 and 1.88.
@pytest.mark.parametrize(
    ("target", "precision", "limit"),
    [
        ("v5e", "bfloat16", 0.77),
        ("v6e", "bfloat16", 0.77),
        pytest.param("v5e", "float32", 1.1, marks=pytest.mark.long),
    ],
)
def test_the_kernel_moves_the_ends_and_the_unembedding_once_a_block(target, precision, limit):
    text, moved, peak = compile_block(tpu.read, target, GPT2, precision)
    assert 'custom_call_target="tpu_custom_call"' in text
    assert moved < limit * 1e6
    xla, moved_by_xla, peak_of_xla = compile_block(interior.read, target, GPT2, precision)
    assert "tpu_custom_call" not in xla
    assert moved < 0.7 * moved_by_xla
    assert peak < peak_of_xla


# Only its results are a little wider.
@pytest.mark.parametrize("top_k", [5, pytest.param(16, marks=pytest.mark.long)])
def test_several_best_tokens_leave_the_logits_on_the_chip(top_k):
    text, moved, _ = compile_block(tpu.read, "v5e", GPT2, "bfloat16", top_k)
    assert 'custom_call_target="tpu_custom_call"' in text
    assert " sort(" not in text and "TopK" not in text
    assert moved < 0.8e6


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_all_layers_of_the_largest_gpt2_fit_the_chip(precision):
    text, _, _ = compile_block(tpu.read, "v5e", LARGEST, precision)
    assert "tpu_custom_call" in text


# MB a token, as above; XLA's program writes the logits of the tiles, and reads them three times.
def test_the_hopper_kernel_moves_the_ends_and_the_unembedding_once_a_block():
    text, moved, _ = compile_block(hopper.read, "h100", GPT2, "bfloat16")
    assert 'custom_call_target="mosaic_gpu_v2"' in text
    assert moved < 0.8e6
    xla, moved_by_xla, _ = compile_block(interior.read, "h100", GPT2, "bfloat16")
    assert "mosaic_gpu" not in xla
    assert moved < 0.1 * moved_by_xla


# The assembler's own words. 53 loads a thread and tile, of some 2,700 instructions (22 for the
# smallest GPT-2); serialised multiplies would wait for each other.
@pytest.mark.parametrize("top_k", [1, pytest.param(hopper.MAX_TOP_K, marks=pytest.mark.long)])
def test_statistics_of_the_largest_gpt2_stay_in_a_hoppers_registers(tmp_path, monkeypatch, top_k):
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    compile_block(hopper.read, "h100", LARGEST, "bfloat16", top_k)
    [log] = tmp_path.glob("*.ptxas")
    said = log.read_text()
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert spilled is not None, said
    assert max(map(int, spilled.groups())) < 400
    assert "serialized" not in said


def compile_lens(target, model, **how):
    """Bytes a token of the lens alone, from all residuals to all quantities of ``core``."""
    n_layer, embed = model
    shape = lambda *sizes, dtype="float32": jax.ShapeDtypeStruct(sizes, dtype)  # noqa: E731
    unembed = types.Unembed(
        "final_norm",
        shape(embed),
        shape(embed),
        1e-5,
        shape(VOCAB, embed, dtype="bfloat16"),
        temperature=shape(n_layer + 1),
        n_layer=n_layer,
    )
    grid = 4, 1024
    ids = shape(*grid, dtype="int32")
    references = types.References(ids, ids, ids, ids, shape(*grid, dtype="bool"))
    request = Options(options.resolve_quantities("core"), precision="bfloat16", block=TOKENS)
    device = require(target)
    tiles = shapes(*model, "bfloat16", device.platform)[-2]
    given = shape(n_layer + 1, *grid, embed), unembed, references, tiles

    def read(residuals, unembed, references, tiles):
        return tiled.read(residuals, unembed, references, request, tiles, **how)

    text = jax.jit(read).lower(*shapes_on(given, device)).compile().as_text()
    return text, traffic.moved(traffic.count(hlo.parse(text))) / math.prod(grid)


# MB a token: of the ends the logits written, read by the interior layers and, those of the first,
# once more for the final token's rank (1.03); the unembedding twice a block of 256 tokens (0.62).
def test_with_both_hopper_kernels_the_lens_moves_two_megabytes_a_token():
    both = {"read_interior": hopper.read, "read_ends": hopper.read_ends}
    text, moved = compile_lens("h100", GPT2, **both)
    assert text.count('custom_call_target="mosaic_gpu_v2"') == 2
    assert moved < 2e6
