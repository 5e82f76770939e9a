"""Weights that are already in memory."""

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_model

import jaxlens
from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.models.checkpoints import layout


class Tensor:
    """Quacks like PyTorch's."""

    def __init__(self, value, floating=True):
        self.value, self.floating = value, floating

    def detach(self):
        return self

    cpu = float = detach

    def is_floating_point(self):
        return self.floating

    def numpy(self):
        return self.value


def test_state_dict_of_pytorch_tensors_loads():
    _, params = checkpoints.make()
    state = {name: Tensor(value) for name, value in random_model.torch_names(params).items()}
    state["transformer.h.0.attn.bias"] = Tensor(np.ones((1, 1, 7, 7), bool), floating=False)
    checkpoint = weights.from_state_dict(state, checkpoints.CONFIG)
    checkpoints.assert_same_bits(checkpoint.params, params)
    assert checkpoint.directory is None


class Module:
    """Quacks like a PyTorch model."""

    def __init__(self, state, config=None):
        self.state_dict = lambda: state
        if config is not None:
            self.config = config


def test_model_of_pytorch_is_taken_with_its_own_configuration():
    _, params = checkpoints.make()
    state = {name: Tensor(value) for name, value in random_model.torch_names(params).items()}
    for module, config in (
        (Module(state, checkpoints.CONFIG), None),
        (Module(state, {"model_type": "mamba"}), checkpoints.CONFIG),
    ):
        model = jaxlens.load_model(module, config=config)
        np.testing.assert_array_equal(model.params["wte"], params["wte"])
    message = checkpoints.refused(Module(state), errors.ConfigError, jaxlens.load_model)
    assert "config=" in message


class Meta(Tensor):
    """Has no values."""

    def numpy(self):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!\nmore")


class Float8(Tensor):
    dtype = "torch.float8_e4m3fn"


@pytest.mark.parametrize(("kind", "named"), [(Meta, "no data!"), (Float8, "float8_e4m3fn")])
def test_tensor_without_values_of_its_own_is_refused_by_name(kind, named):
    state = checkpoints.torch_state(checkpoints.make()[1])
    state["transformer.wpe.weight"] = kind(state["transformer.wpe.weight"])
    message = checkpoints.refused(
        state, load=lambda s: weights.from_state_dict(s, checkpoints.CONFIG)
    )
    assert "transformer.wpe.weight" in message and named in message


def test_state_dict_of_flax_loads_nested_and_flattened():
    _, params = checkpoints.make(checkpoints.UNTIED)
    tree = checkpoints.flax_tree(params)
    tuples = {tuple(name.split("/")): value for name, value in layout.flat(tree).items()}
    for state in (tree, layout.flat(tree), tuples, jax.tree.map(jnp.asarray, tree)):
        checkpoints.assert_same_bits(
            weights.from_state_dict(state, checkpoints.UNTIED).params, params
        )


def test_state_dict_of_bfloat16_arrays_loads():
    _, params = checkpoints.make()
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), checkpoints.flax_tree(params))
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), params)
    checkpoints.assert_same_bits(
        weights.from_state_dict(narrow, checkpoints.CONFIG).params, expected
    )


def test_loaded_weights_do_not_change_with_the_state_dict():
    _, params = checkpoints.make()
    state = checkpoints.torch_state(params)
    checkpoint = weights.from_state_dict(state, checkpoints.CONFIG)
    state["transformer.wte.weight"][:] = 0
    assert checkpoint.params["wte"].any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"transformer.ln_f.bias": Tensor(np.zeros(6, np.int64), floating=False)}, "int64"),
        ({"transformer.ln_f.bias": "text"}, "transformer.ln_f.bias"),
        ({"transformer.ln_f.bias": None}, "transformer.ln_f.bias"),
        ({"transformer.ln_f.bias": [[1.0], [2.0, 3.0]]}, "transformer.ln_f.bias"),
        ({"transformer.ln_f.bias": 1.0}, "transformer.ln_f.bias"),
        ({3: np.zeros(6, np.float32)}, "3"),
    ],
)
def test_bad_value_in_a_state_dict_is_refused_by_name(change, named):
    state = {**checkpoints.torch_state(checkpoints.make()[1]), **change}
    assert named in checkpoints.refused(
        state, load=lambda s: weights.from_state_dict(s, checkpoints.CONFIG)
    )


def test_empty_state_dict_is_refused():
    assert "wte" in checkpoints.refused(
        {}, load=lambda s: weights.from_state_dict(s, checkpoints.CONFIG)
    )
