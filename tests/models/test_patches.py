"""Patches of the stream against the float64 forward that is patched at the same place."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jaxlens
from jaxlens import errors, models
from jaxlens.models import loading, patches

ATOL = 2e-4
"""Of streams of the packaged model, whose norms reach some tens, in float32."""

LENGTH = 12


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


@pytest.fixture(scope="module")
def tokens(model):
    return np.random.default_rng(0).integers(0, model.config.vocab_size, (3, LENGTH))


@pytest.fixture(scope="module")
def plain(model, tokens):
    return np.asarray(jaxlens.residuals(model, tokens))


def mask_of(*places):
    mask = np.zeros((3, LENGTH), bool)
    for line, position in places:
        mask[line, position] = True
    return mask


MASK = mask_of((0, 3), (0, 7), (2, 5))


def params_of(model):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.params)


def basis_of(model, directions):
    drawn = np.random.default_rng(1).normal(0, 1, (3, LENGTH, model.config.n_embd, directions))
    return np.linalg.qr(drawn)[0].swapaxes(-1, -2).astype(np.float32)


def by_hand(layer, mask, mean, basis=None):
    """The definition, one position at a time."""

    def patch(number, h):
        h = h.copy()
        for line, position in np.argwhere(mask) if number == layer else ():
            away = h[line, position] - mean
            if basis is not None:
                own = basis[line, position].astype(np.float64)
                away = own.T @ (own @ away)
            h[line, position] -= away
        return h

    return patch


@pytest.mark.parametrize(
    "directions", [*(pytest.param(n, marks=pytest.mark.long) for n in (None, 1)), 3]
)
def test_every_layer_is_that_of_the_reference(model, tokens, plain, directions):
    mean = np.random.default_rng(2).normal(0, 1, model.config.n_embd).astype(np.float32)
    basis = None if directions is None else basis_of(model, directions)
    for layer in range(model.config.n_layer + 1):
        patch = patches.Replace(layer, MASK, mean, basis)
        found = np.asarray(jaxlens.residuals(model, tokens, patch=patch))
        expected = oracle.residuals(
            params_of(model), model.config, tokens, patch=by_hand(layer, MASK, mean, basis)
        )
        np.testing.assert_allclose(found, expected, atol=ATOL, rtol=1e-4)
        # What lies before is untouched to the last bit, and so is what no attention reaches.
        np.testing.assert_array_equal(found[:layer], plain[:layer])
        np.testing.assert_array_equal(found[:, 0, :3], plain[:, 0, :3])
        np.testing.assert_array_equal(found[:, 1], plain[:, 1])
        if layer:
            assert np.abs(found[layer] - plain[layer])[MASK].max() > 0.1


@pytest.mark.parametrize("directions", [1, 3])
def test_the_complement_replaces_all_but_the_span(model, tokens, directions):
    mean = np.random.default_rng(5).normal(0, 1, model.config.n_embd).astype(np.float32)
    basis = basis_of(model, directions)

    def rest(number, h):
        whole, part = by_hand(2, MASK, mean), by_hand(2, MASK, mean, basis)
        return h + (whole(number, h) - h) - (part(number, h) - h)

    found = jaxlens.residuals(
        model, tokens, patch=patches.Replace(2, MASK, mean, basis, complement=True)
    )
    expected = oracle.residuals(params_of(model), model.config, tokens, patch=rest)
    np.testing.assert_allclose(np.asarray(found), expected, atol=ATOL, rtol=1e-4)


def test_the_complement_of_nothing_is_the_whole_stream(model, tokens):
    mean = np.random.default_rng(6).normal(0, 1, model.config.n_embd).astype(np.float32)
    nothing = np.zeros((3, LENGTH, 2, model.config.n_embd), np.float32)
    found = jaxlens.residuals(
        model, tokens, patch=patches.Replace(1, MASK, mean, nothing, complement=True)
    )
    whole = jaxlens.residuals(model, tokens, patch=patches.Replace(1, MASK, mean))
    np.testing.assert_allclose(found, whole, atol=ATOL, rtol=1e-4)


def test_nothing_is_left_along_the_directions(model, tokens):
    basis = basis_of(model, 4)
    mean = np.zeros(model.config.n_embd, np.float32)
    found = jaxlens.residuals(model, tokens, patch=patches.Replace(2, MASK, mean, basis))
    left = np.einsum("bpde,bpe->bpd", basis, np.asarray(found[2]))
    assert np.abs(left[MASK]).max() < 1e-5 * np.abs(np.asarray(found[2])).max()


def test_a_shift_moves_the_stream_as_far_as_the_part_is_long(model, tokens, plain):
    mean = np.random.default_rng(7).normal(0, 1, model.config.n_embd).astype(np.float32)
    basis = basis_of(model, 2)
    shift = np.random.default_rng(8).normal(0, 1, (*MASK.shape, model.config.n_embd))
    shift = (shift / np.linalg.norm(shift, axis=-1, keepdims=True)).astype(np.float32)
    shift[0, 3] = 0  # there the part is replaced
    found = jaxlens.residuals(
        model, tokens, patch=patches.Replace(2, MASK, mean, basis, shift=shift)
    )[2]
    replaced = jaxlens.residuals(model, tokens, patch=patches.Replace(2, MASK, mean, basis))[2]
    moved, cut = np.asarray(found) - plain[2], np.asarray(replaced) - plain[2]
    length = np.linalg.norm(cut, axis=-1, keepdims=True)
    expected = np.where((shift != 0).any(-1, keepdims=True), length * shift, cut)
    assert MASK[0, 3] and MASK.sum() > 1 and length[MASK].min() > 0.1
    np.testing.assert_allclose(moved, expected, atol=ATOL)


def test_the_whole_stream_of_the_input_layer_is_the_token(model, tokens):
    """Another embedding at that place, with nothing patched, gives the same streams."""
    mean = np.random.default_rng(3).normal(0, 0.1, model.config.n_embd)
    params = params_of(model)
    found = jaxlens.residuals(
        model, tokens, patch=patches.Replace(0, mask_of((1, 4)), mean.astype(np.float32))
    )
    ids = tokens.copy()
    ids[1, 4] = len(params["wte"])
    params["wte"] = np.vstack([params["wte"], mean - params["wpe"][4]])
    expected = oracle.residuals(params, model.config, ids)
    np.testing.assert_allclose(np.asarray(found), expected, atol=ATOL, rtol=1e-4)


def test_a_batch_of_any_shape_gives_the_same(model, tokens):
    mean = np.random.default_rng(4).normal(0, 1, model.config.n_embd).astype(np.float32)
    together = jaxlens.residuals(model, tokens, patch=patches.Replace(3, MASK, mean))
    for line in range(3):
        one = patches.Replace(3, MASK[line : line + 1], mean)
        alone = jaxlens.residuals(model, tokens[line : line + 1], patch=one)
        np.testing.assert_allclose(alone[:, 0], together[:, line], atol=ATOL, rtol=1e-4)


def test_one_program_serves_every_layer_and_place(model, tokens):
    mean = np.zeros(model.config.n_embd, np.float32)
    jaxlens.residuals(model, tokens, patch=patches.Replace(0, MASK, mean))
    before = loading._forward._cache_size()
    for layer in range(model.config.n_layer + 1):
        jaxlens.residuals(model, tokens, patch=patches.Replace(layer, ~MASK, mean + layer))
    assert loading._forward._cache_size() == before


def test_nothing_is_computed_where_there_is_no_patch(model, tokens):
    """The blocks' program is shorter by what a patch does."""

    def blocks(**more):
        traced = jax.make_jaxpr(
            lambda params, ids: models.residuals(params, model.config, ids, **more)
        )(model.params, jnp.asarray(tokens))
        (scan,) = (one for one in traced.eqns if one.primitive.name == "scan")
        return [str(one.primitive) for one in scan.params["jaxpr"].jaxpr.eqns]

    mean = jnp.zeros(model.config.n_embd)
    patched = blocks(patch=patches.Replace(0, jnp.asarray(MASK), mean))
    assert len(patched) > len(blocks()) and "select_n" not in blocks()[:3]


def test_any_pure_function_is_a_patch(model, tokens, plain):
    def halved(layer, stream):
        return jnp.where(layer == 2, stream / 2, stream)

    def scaled(by, layer, stream):
        return jnp.where(layer == 2, stream * by, stream)

    found = jaxlens.residuals(model, tokens, patch=halved)
    np.testing.assert_array_equal(found[:2], plain[:2])
    np.testing.assert_allclose(found[2], plain[2] / 2)
    same = jaxlens.residuals(model, tokens, patch=jax.tree_util.Partial(scaled, 0.5))
    np.testing.assert_allclose(found, same, rtol=1e-6)

    class Scale(NamedTuple):  # a pytree of arrays that can be called, as modules of libraries are
        by: jax.Array

        def __call__(self, layer, stream):
            return scaled(self.by, layer, stream)

    np.testing.assert_array_equal(
        same, jaxlens.residuals(model, tokens, patch=Scale(jnp.float32(0.5)))
    )
    with pytest.raises(errors.ConfigError, match="patch is a str"):
        jaxlens.residuals(model, tokens, patch="layer 2")
