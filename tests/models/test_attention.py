"""Causal attention: blocks of any size mix the same values."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens.lens import tuning
from jaxlens.models import attention


def plain(query, key, value, segments):
    """The definition in float64, all scores at once."""
    length = query.shape[1]
    scores = np.einsum("bqhd,bkhd->bhqk", query, key).astype(np.float64)
    seen = np.tril(np.ones((length, length), bool))[None]
    seen = seen & (segments[:, :, None] == segments[:, None])
    weights = np.where(seen[:, None], np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize(
    ("platform", "length"),
    [
        pytest.param(*how, marks=[pytest.mark.long] * (how != ("TPU", 300)))
        for how in itertools.product(("CPU", "GPU", "TPU"), (1, 64, 300))
    ],
)
def test_attention_is_its_definition_whatever_the_blocks(platform, length, monkeypatch):
    monkeypatch.setattr(tuning, "CPU", getattr(tuning, platform))
    random = np.random.default_rng(length)
    query, key, value = random.standard_normal((3, 2, length, 2, 8)).astype(np.float32)
    segments = (np.arange(length)[None] >= [[length // 3], [length]]).astype(np.int32)
    got = attention.causal(*map(jnp.asarray, (query, key, value, segments)))
    np.testing.assert_allclose(got, plain(query, key, value, segments), rtol=1e-5, atol=1e-5)
