"""The Hopper kernel of the interior layers, in JAX's interpreter of GPU kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import make_case
from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call as interpreter
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

from jaxlens.lens import ends, interior, numerics, tiled, unembedding
from jaxlens.lens.kernels import fragments, hopper, hopper_sizes, hopper_statistics
from jaxlens.lens.options import Options

FEW = ("rank_input", "rank_final", "kl_final", "kl_input", "entropy", "top_id", "top_logp")


@pytest.fixture
def interpret():
    """The interpreter; what a failed test leaves of it would fail the next."""
    yield InterpretGPUParams(detect_races=True)
    interpreter.reset_gpu_interpret_mode_state()


def best_of(z, columns, k):
    """The k greatest logits among some columns, and these; of equals the lowest column first."""
    order = np.argsort(-z[..., columns], axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(z[..., columns], order, -1), columns[order]


# The lanes of a block of columns, without any kernel; few values, so that many logits are equal.
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_lanes_keep_the_best_and_of_equals_the_first(top_k):
    random = np.random.default_rng(3)
    z = random.integers(-3, 4, (fragments.ROWS, 20 * fragments.LANES)).astype(np.float32)
    state = fragments.start(0, top_k, is_tempered=False, n_ends=0)
    of_lanes = np.arange(z.shape[1]).reshape(-1, fragments.LANES)
    for some in np.split(of_lanes, 4):
        logits = [jnp.asarray(z[:, columns]) for columns in some]
        spread = [jnp.broadcast_to(jnp.asarray(columns), logits[0].shape) for columns in some]
        state = fragments.find_best(state, logits, spread)
    floats, integers = fragments.combine(state, None)
    best, columns = best_of(z, of_lanes.ravel(), top_k)
    found = [floats[name] for name in fragments.best_logits(top_k)]
    assert np.array_equal(np.stack(found, -1), best)
    assert np.array_equal(np.stack(integers, -1), columns)


# Interpreted, it takes a quarter of a minute.
# Small integers, so that all logits are exact and many are equal. Three tiles in splits of one and
# two, three steps in a ring of two buffers, no temperatures.
@pytest.mark.long
@pytest.mark.parametrize("top_k", [1, 3])
def test_ranks_and_the_best_tokens_of_exact_logits_are_exact(interpret, top_k):
    random = np.random.default_rng(2)
    shape = hopper_sizes.Shape(
        layers=2, tile=64, splits=2, stages=2, is_tempered=False, top_k=top_k
    )
    rows = random.integers(-2, 3, (2, 64, 192)) * (random.random((2, 64, 192)) < 0.1)
    weight = random.integers(-2, 3, (192, 192))
    z = rows @ weight.T
    end = random.integers(-9, 9, (2, 64, 192)).astype(float)
    ids = random.integers(0, 192, (64, 3)).astype(np.int32)
    at = np.take_along_axis(z, np.broadcast_to(ids, (2, 64, 3)), -1)
    log_p = oracle.log_softmax(end)
    statistics = functools.partial(hopper_statistics.call, shape=shape, interpret=interpret)
    floats, integers = jax.jit(statistics)(
        {
            "rows": rows.astype(jnp.bfloat16),
            "weight": weight.astype(jnp.bfloat16),
            "biases": np.zeros((2, 192), np.float32),
            "reference_logits": at.swapaxes(1, 2).astype(np.float32),
            "ids": np.ascontiguousarray(ids.T),
            "inverse_temperature": np.ones(2, np.float32),
            "end_logits": end.astype(np.float32),
            "end_log_total": (end - log_p)[..., 0].astype(np.float32),
        }
    )
    assert not interpreter.get_races().races_found
    p = np.exp(log_p)
    ties = 0
    for split, columns in enumerate([np.arange(64), np.arange(64, 192)]):
        of = z[..., columns]
        other = columns != ids[..., None]
        above = ((of[:, :, None] > at[..., None]) & other).sum(-1)
        ties += ((of[:, :, None] == at[..., None]) & other).sum()
        best, of_best = best_of(z, columns, top_k)
        assert np.array_equal(np.moveaxis(integers[split, :top_k], 0, -1), of_best)
        assert np.array_equal(np.moveaxis(integers[split, top_k:], 0, -1), above)
        e = np.exp(of - of.max(-1, keepdims=True))
        q = p[..., columns]
        expected = dict(zip(fragments.best_logits(top_k), np.moveaxis(best, -1, 0), strict=True))
        expected |= {
            "sum_exp": e.sum(-1),
            "sum_exp_logit": (e * of).sum(-1),
        }
        for i, name in enumerate(("input", "final")):
            expected[f"kl_{name}"] = (q[i] * of).sum(-1)
            between = (q[i] * end[1 - i][..., columns]).sum(-1)
            expected[f"between_{name}"] = np.stack([between, between])
        for k, name in enumerate(shape.floats):
            want = expected[name]
            np.testing.assert_allclose(
                floats[split, k], want, rtol=3e-6, atol=3e-6, err_msg=f"{name} {split}"
            )
    assert ties > 100


def random_block(n_tokens, embed, columns, top_k):
    """Two interior and two end layers, four references of each, and tiles of 72 columns."""
    random = np.random.default_rng(5)
    unembed = make_case(columns, seed=1, embed=embed).unembed
    options = Options(("kl_final_matched",), tile=72, top_k=top_k, precision="bfloat16")
    tiles = unembedding.tile_unembedding(unembed, options)
    rows = jnp.asarray(random.standard_normal((4, n_tokens, embed)), tiles.weight.dtype)
    ids = random.integers(0, columns, (n_tokens, 4)).astype(np.int32)
    flat = tiles.weight.reshape(-1, embed)
    with numerics.matmul_precision("bfloat16"):
        logits = np.asarray(unembedding.logits(rows, flat, tiles.flat_bias))
    at = np.take_along_axis(logits, np.broadcast_to(ids, (4, n_tokens, 4)), -1)
    return rows, jnp.asarray(at), jnp.asarray(ids), tiles, options


def run_both(monkeypatch, n_blocks, fused, read, *given):
    """What a kernel of a few blocks of threads reads and what XLA reads."""
    monkeypatch.setattr(hopper, "TILE", 64)
    monkeypatch.setattr(hopper, "STAGES", 2)
    monkeypatch.setattr(hopper, "MULTIPROCESSORS", n_blocks)
    with numerics.matmul_precision("bfloat16"):
        results = [jax.jit(one)(*given) for one in (fused, read)]
    assert not interpreter.get_races().races_found
    return results


def assert_same(got, want):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


# Rows, elements and columns are padded: 75 in tiles of 64, the third of which is all padding.
@pytest.mark.long
@pytest.mark.parametrize("top_k", [1, 3])
def test_a_ragged_block_is_what_xla_reads(monkeypatch, interpret, top_k):
    rows, at, ids, tiles, options = random_block(21, 24, 75, top_k)
    beta = jnp.array([0.5, 2.0], jnp.float32)
    end, end_logits = ends.read(rows[2:], at[2:], ids, tiles, None, options)
    fused = functools.partial(hopper.fused, top_k=top_k, interpret=interpret)
    read = functools.partial(interior.read, options=options)
    given = rows[:2], at[:2], ids, end_logits, end, tiles, beta
    assert_same(*run_both(monkeypatch, 3, fused, read, *given))


@pytest.mark.long
def test_the_ends_of_a_ragged_block_and_their_logits_are_what_xla_reads(monkeypatch, interpret):
    rows, at, ids, tiles, options = random_block(70, 72, 75, top_k=2)
    fused = functools.partial(hopper.fused_ends, top_k=2, interpret=interpret)
    read = functools.partial(ends.read, options=options)
    given = rows[2:], at[2:], ids, tiles, jnp.array([0.5, 1.0], jnp.float32)
    (running, kept), (expected, with_bias) = run_both(monkeypatch, 2, fused, read, *given)
    assert_same(running, expected)
    assert_same(kept + tiles.flat_bias[None, None], with_bias)


def test_what_the_kernel_reads():
    rows = jax.ShapeDtypeStruct((11, 256, 768), "bfloat16")
    narrow = functools.partial(Options, FEW, precision="bfloat16")
    assert hopper.is_supported(rows, 5, narrow())
    assert hopper.is_supported(rows, 5, narrow(top_k=hopper.MAX_TOP_K))
    assert not hopper.is_supported(rows, 5, narrow(top_k=hopper.MAX_TOP_K + 1))
    assert not hopper.is_supported(rows, 5, Options(FEW, precision="float32"))
    assert not hopper.is_supported(rows, 5, Options((*FEW, "js_final"), precision="bfloat16"))
    assert not hopper.is_supported(rows, 5, Options((*FEW, "kl_to_input"), precision="bfloat16"))
    assert not hopper.is_supported(rows, 9, narrow())
    assert not hopper.is_supported(rows, 0, narrow())
    assert not hopper.is_supported(rows.update(shape=(0, 256, 768)), 5, narrow())


@pytest.mark.long
def test_off_nvidia_gpus_xla_reads_the_same():
    case = make_case(97)
    options = Options(FEW, precision="bfloat16")
    readings = [
        jax.jit(functools.partial(tiled.read, **how), static_argnums=3)(
            case.residuals, case.unembed, case.references, options
        )
        for how in ({}, {"read_interior": hopper.read, "read_ends": hopper.read_ends})
    ]
    for one, other in zip(*map(jax.tree.leaves, readings), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize(
    ("layers", "n_tokens", "each", "splits"),
    [(11, 256, 3, 8), (11, 256, 2, 5), (11, 1024, 3, 2), (47, 256, 3, 2), (11, 4096, 3, 1)],
)
def test_blocks_of_threads_fill_the_chip(layers, n_tokens, each, splits):
    assert hopper._choose_splits(layers, n_tokens, 403, each) == splits
    assert hopper._choose_splits(layers, n_tokens, 1, each) == 1
