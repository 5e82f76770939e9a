"""The best logits of a row, however they are found."""

import functools

import jax
import numpy as np
import pytest

from jaxlens.lens import top_k, tuning


# Few values, so that many logits are equal, in one group of columns and in several.
@pytest.mark.parametrize("columns", [3, 128, 131, 20_000])
@pytest.mark.parametrize("values", [2, 50, 10**6])
@pytest.mark.parametrize("platform", ["CPU", "TPU"])
def test_they_are_in_order_and_of_equals_the_first_is_taken(columns, values, platform, monkeypatch):
    monkeypatch.setattr(tuning, "CPU", getattr(tuning, platform))
    z = np.random.default_rng(0).integers(0, values, (2, 5, columns)).astype(np.float32)
    k = min(columns, 6)
    logits, best = jax.jit(functools.partial(top_k.find, k=k))(z)
    expected = np.argsort(-z, axis=-1, kind="stable")[..., :k]
    assert np.array_equal(best, expected)
    assert np.array_equal(logits, np.take_along_axis(z, expected, -1))


def test_a_tpu_sorts_neither_a_vocabulary_nor_a_tile(monkeypatch):
    monkeypatch.setattr(tuning, "CPU", tuning.TPU)
    for columns in (50257, 1024):
        z = jax.ShapeDtypeStruct((2, 8, columns), np.float32)
        text = jax.jit(functools.partial(top_k.find, k=5)).lower(z).compile().as_text()
        assert "TopK" not in text and " sort(" not in text


def test_many_are_sorted(monkeypatch):
    monkeypatch.setattr(tuning, "CPU", tuning.TPU)
    z = np.random.default_rng(1).normal(size=(1, 2, 300)).astype(np.float32)
    logits, best = top_k.find(jax.numpy.asarray(z), 100)
    assert np.array_equal(best, np.argsort(-z, axis=-1, kind="stable")[..., :100])
    assert np.array_equal(logits, -np.sort(-z, axis=-1)[..., :100])
