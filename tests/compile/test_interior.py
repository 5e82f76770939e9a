"""The kernel of the interior layers, compiled for TPUs beside what XLA makes of them."""

import functools

import jax
import pytest
from compile.programs import require, shapes_on

from jaxlens.bench.compiled import hlo, traffic
from jaxlens.lens import interior, numerics, online, tuning, unembedding
from jaxlens.lens.kernels import tpu
from jaxlens.lens.options import Options

pytestmark = pytest.mark.compile

TOKENS, REFERENCES, VOCAB = 256, 5, 50257
GPT2 = 12, 768
LARGEST = 48, 1600


def shapes(n_layer, embed, dtype):
    """Shapes of what `interior.read` takes, of one block of a model."""
    layers = n_layer - 1
    tile = tuning.choose_tile(VOCAB, n_layer, "tpu")
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


def compile_block(read, target, model, precision):
    options = Options(("kl_final_matched",), precision=precision)
    with numerics.matmul_precision(precision):
        given = shapes_on(shapes(*model, numerics.operand_dtype(precision)), require(target))
        compiled = jax.jit(functools.partial(read, options=options)).lower(*given).compile()
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


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_all_layers_of_the_largest_gpt2_fit_the_chip(precision):
    text, _, _ = compile_block(tpu.read, "v5e", LARGEST, precision)
    assert "tpu_custom_call" in text
