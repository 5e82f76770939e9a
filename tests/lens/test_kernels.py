"""The TPU kernel of the interior layers, interpreted: what `test_lens` does not reach."""

import dataclasses
import functools

import jax
import numpy as np
import oracle
import pytest
from cases import make_case
from readings import assert_close, expect

from jaxlens.lens import pallas
from jaxlens.lens.kernels import lanes, row_statistics, tpu
from jaxlens.lens.options import Options

FEW = ("rank_input", "rank_final", "kl_final", "kl_input", "entropy", "top_id", "top_logp")


def read(case, **how):
    options = Options(**({"quantities": (*FEW, "kl_final_matched")} | how))
    readout = jax.jit(pallas.read, static_argnums=3)(
        case.residuals, case.unembed, case.references, options
    )
    return {name: np.asarray(value) for name, value in readout.present().items()}


def check(case, **how):
    got = read(case, **how)
    size = np.abs(oracle.logits(case.residuals, case.unembed)).max()
    assert_close(got, expect(case, got["top_id"].shape[-1]), got, size=size)
    return got


def with_unembed(case, **changes):
    return dataclasses.replace(case, unembed=case.unembed.replace(**changes))


def calls_kernel(case, **how):
    options = Options(**({"quantities": FEW} | how))
    run = functools.partial(pallas.read, options=options)
    return "pallas_call" in str(jax.make_jaxpr(run)(case.residuals, case.unembed, case.references))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_kernel_reads_what_it_can(precision):
    assert calls_kernel(make_case(97), precision=precision)


def test_xla_reads_what_the_kernel_does_not(monkeypatch):
    case = make_case(97)
    assert not calls_kernel(case, top_k=tpu.MAX_TOP_K + 1)
    assert not calls_kernel(case, quantities=(*FEW, "js_final"))
    assert not calls_kernel(case, quantities=(*FEW, "kl_to_input"))
    assert not calls_kernel(case, layers=(0, -1))
    references = case.references.replace(follow=np.zeros((*case.references.mask.shape, 20), int))
    assert not calls_kernel(dataclasses.replace(case, references=references))
    monkeypatch.setattr(tpu, "ROWS_BYTES", 2**10)
    assert not calls_kernel(case)


def test_what_xla_reads_instead_is_the_oracles():
    check(make_case(97), top_k=20, quantities=(*FEW, "js_final", "kl_to_input"))


# Three blocks of 8 tokens, the last one padded, and three tiles.
@pytest.mark.long
def test_several_blocks_and_tiles_of_the_kernel_are_the_oracles(monkeypatch):
    case = make_case(300, position=7)
    rows = jax.ShapeDtypeStruct((2, 21, case.residuals.shape[-1]), np.float32)
    monkeypatch.setattr(tpu, "MAX_TILE", 128)
    monkeypatch.setattr(tpu, "ROWS_BYTES", 8 * tpu._bytes_of_row(rows, 7, 2))
    assert tpu._choose_tokens(rows, 7, 2) == 8
    check(case, block=21, tile=75, top_k=2)


@pytest.mark.long
def test_a_vocabulary_of_whole_tiles_without_bias_and_temperatures_is_the_oracles(monkeypatch):
    monkeypatch.setattr(tpu, "MAX_TILE", 128)
    case = with_unembed(make_case(256, seed=4), output_bias=None, temperature=None)
    check(case, tile=128, block=8, quantities=FEW)


# Small integers, so that all logits are exact and many are equal.
@pytest.mark.parametrize(
    ("dtype", "top_k"),
    [pytest.param(np.float32, 1, marks=pytest.mark.long), (jax.numpy.bfloat16, 5)],
)
def test_ranks_and_the_best_tokens_of_exact_logits_are_exact(dtype, top_k):
    random = np.random.default_rng(2)
    rows, weight = random.integers(-2, 3, (2, 16, 6)), random.integers(-2, 3, (256, 6))
    z = rows @ weight.T
    end = random.integers(-9, 9, (2, 16, 256))
    ids = random.integers(0, 256, (16, 3)).astype(np.int32)
    ids[::2, 2] = ids[::2, 0]  # the same token twice
    at = np.take_along_axis(z, np.broadcast_to(ids, (2, 16, 3)), -1)
    log_p = oracle.log_softmax(end)
    shape = row_statistics.Shape(16, 128, top_k, True, 2**20)
    statistics = functools.partial(row_statistics.call, shape=shape, interpret=True)
    floats, integers, between = jax.jit(statistics)(
        *(x.astype(dtype) for x in (rows, weight)),
        np.zeros((2, 256), np.float32),
        end.astype(np.float32),
        (end - log_p)[..., :1].astype(np.float32),
        at.astype(np.float32),
        ids,
        np.array([0.5, 2.0], np.float32),
    )
    other = np.arange(256) != ids[..., None]
    above = ((z[:, :, None] > at[..., None]) & other).sum(-1)
    ties = ((z[:, :, None] == at[..., None]) & other).sum(-1)
    assert ties.min() > 0
    assert np.array_equal(integers[..., top_k:], above)
    best = np.argsort(-z, axis=-1, kind="stable")[..., :top_k]  # the lowest of equals first
    assert np.array_equal(integers[..., :top_k], best)
    logits = np.concatenate([floats[..., :1], floats[..., len(lanes.FLOATS) :]], -1)
    assert np.array_equal(logits, np.take_along_axis(z, best, -1))
    e = np.exp(z - z.max(-1, keepdims=True))
    p = np.exp(log_p)
    moments = [(p[i] * z).sum(-1) for i in range(2)]
    tempered = (e ** np.array([0.5, 2.0])[:, None, None]).sum(-1)
    expected = [z.max(-1), e.sum(-1), (e * z).sum(-1), *moments, tempered]
    for k, name in enumerate(lanes.FLOATS):
        np.testing.assert_allclose(floats[..., k], expected[k], rtol=2e-6, atol=2e-6, err_msg=name)
    cross = np.stack([(p[i] * end[1 - i]).sum(-1) for i in range(2)], -1)
    np.testing.assert_allclose(between, cross, rtol=2e-6, atol=2e-6)


@pytest.mark.long
def test_of_equal_logits_in_several_lanes_and_tiles_the_lowest_id_is_best(monkeypatch):
    monkeypatch.setattr(tpu, "MAX_TILE", 128)
    case = make_case(384, seed=6)
    # Each logit twice or four times: in two lanes of a tile, and in two tiles.
    order = np.concatenate([np.arange(64), np.arange(64), *[np.arange(64, 128)] * 4])
    case = with_unembed(
        case, weight=case.unembed.weight[order], output_bias=case.unembed.output_bias[order]
    )
    got = check(case, tile=128, block=8)
    top_id = got["top_id"][:, case.references.mask, 0]
    assert ((top_id < 64) | ((top_id >= 128) & (top_id < 192))).all()
    assert (top_id >= 128).any() and (top_id < 64).any()


@pytest.mark.parametrize(
    ("n_layer", "embed", "columns", "dtype", "tile", "tokens"),
    [
        (12, 768, 51200, "bfloat16", 1024, 256),
        (24, 1024, 51200, "bfloat16", 1024, 256),
        (36, 1280, 50560, "bfloat16", 640, 128),
        (48, 1600, 50688, "bfloat16", 768, 128),
        (48, 1600, 50688, "float32", 512, 64),
    ],
)
def test_what_gpt2_gives_the_kernel_is_not_padded(n_layer, embed, columns, dtype, tile, tokens):
    rows = jax.ShapeDtypeStruct((n_layer - 1, 256, embed), dtype)
    assert tpu._choose_tile(columns, embed * rows.dtype.itemsize) == tile
    assert tpu._choose_tokens(rows, 5, 1) == tokens
    assert columns % tile == 0 and 256 % tokens == 0


def test_a_block_that_nothing_divides_is_padded(monkeypatch):
    rows = jax.ShapeDtypeStruct((11, 101, 768), np.float32)
    assert tpu._choose_tokens(rows, 5, 1) == 104
    monkeypatch.setattr(tpu, "ROWS_BYTES", 60 * tpu._bytes_of_row(rows, 5, 3))
    assert tpu._choose_tokens(rows, 5, 3) == 56
