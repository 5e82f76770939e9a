"""Devices that share a model: what each holds, and that together they are the model."""

import math

import jax
import numpy as np
import pytest
import toy_family
from families import CASES, weights
from random_model import random_params

from jaxlens import errors, models
from jaxlens.lens import mesh
from jaxlens.models import loading, placement
from jaxlens.models.checkpoints import layout
from jaxlens.models.checkpoints.checkpoint import Checkpoint

GPT2 = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_head": 4,
    "n_embd": 40,
    "n_positions": 32,
    "vocab_size": 1009,
    "bos_token_id": None,
}
# Of residuals of order ten; the partial sums of devices are added in another order.
ATOL = {"float32": 2e-5, "bfloat16": 0.15}


def load(config, count, dtype="float32"):
    checkpoint = Checkpoint(models.parse(config), random_params(config, 0), None)
    return loading.from_checkpoint(checkpoint, dtype, jax.devices()[:count])


def forward(model, precision="float32"):
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 32))
    return loading.forward(model.params, model.config, tokens.astype(np.int32), precision)


@pytest.mark.parametrize(
    ("count", "dtype", "changes"),
    [
        (2, "float32", {}),
        (4, "float32", {"n_head": 5, "tie_word_embeddings": False}),  # heads that 4 do not divide
        pytest.param(4, "bfloat16", {}, marks=pytest.mark.long),
        pytest.param(
            2, "float32", {"scale_attn_by_inverse_layer_idx": True}, marks=pytest.mark.long
        ),
    ],
)
def test_residuals_are_those_of_one_device(count, dtype, changes):
    one, shared = (load(GPT2 | changes, n, dtype) for n in (1, count))
    precision = "bfloat16" if dtype == "bfloat16" else "float32"
    expected, got = forward(one, precision), forward(shared, precision)
    np.testing.assert_allclose(got, expected, rtol=0, atol=ATOL[dtype])
    assert np.abs(expected).max() > 1
    assert got.sharding.is_fully_replicated
    assert loading.check_identity(shared) < 1e-4


@pytest.mark.parametrize("count", [2, 4])
def test_each_device_holds_its_share_and_no_leaf_twice(count):
    config = GPT2 | {"tie_word_embeddings": False}
    params = layout.flat(load(config, count).params)
    whole = layout.flat(random_params(config, 0))
    assert {path: leaf.size for path, leaf in params.items()} == {
        path: leaf.size for path, leaf in whole.items()
    }
    for path, leaf in params.items():
        shares = {shard.data.size for shard in leaf.addressable_shards}
        # What is added to the stream, and norms, are vectors that each device has.
        is_whole = path.rsplit("/", 2)[-2:] in (["c_proj", "bias"],) or "ln_" in path
        assert shares == {leaf.size if is_whole else leaf.size // count}, path


def test_a_checkpoint_lets_go_of_what_devices_have_and_keeps_its_digest():
    params = random_params(GPT2, 0)
    kept, given = (Checkpoint(models.parse(GPT2), dict(params), None) for _ in range(2))
    loading.from_checkpoint(given, devices=jax.devices()[:2])
    assert given.params == {} and given.sha256 == kept.sha256


@pytest.mark.parametrize("tied", [True, False])
def test_shapes_are_those_of_the_weights(tied):
    config = GPT2 | {"tie_word_embeddings": tied}
    params = load(config, 4).params
    shapes = placement.shapes(models.parse(config), "float32", 4)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.sharding.spec), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.sharding.spec), shapes
    )
    assert mesh.count(params) == mesh.count(shapes) == 4


def test_a_family_that_splits_nothing_is_read_by_all_devices(monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "toy", "toy_family")
    architecture = models.parse(toy_family.CONFIG)
    one, shared = (
        loading.from_checkpoint(
            Checkpoint(architecture, models.init(architecture, 0), None),
            devices=jax.devices()[:count],
        )
        for count in (1, 2)
    )
    np.testing.assert_allclose(forward(shared), forward(one), rtol=0, atol=2e-5)
    assert loading.check_identity(shared) < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        *("gpt_neox", "gemma3"),
        *(
            pytest.param(n, marks=pytest.mark.long)
            for n in ("llama", "qwen3", "olmo2-grouped", "gemma2")
        ),
    ],
)
def test_every_family_is_shared(name):
    architecture = models.parse(CASES[name][1])
    params = weights.random_weights(architecture)
    one, shared = (
        loading.from_checkpoint(Checkpoint(architecture, params, None), devices=jax.devices()[:n])
        for n in (1, 2)
    )
    expected, got = forward(one), forward(shared)
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 * np.abs(expected).max())
    assert loading.check_identity(shared) < 1e-4
    kernels = {p: leaf for p, leaf in layout.flat(shared.params).items() if p.endswith("/kernel")}
    for path, leaf in kernels.items():
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 2}, path


@pytest.mark.parametrize("count", [3, 7])
def test_a_number_that_does_not_divide_the_model_is_refused(count):
    with pytest.raises(errors.ConfigError, match=f"mesh.model is {count}.* n_embd of 40") as caught:
        placement.require(models.parse(GPT2), count)
    assert str(math.gcd(40, 160)) in caught.value.hint
