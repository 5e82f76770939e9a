"""Tiny checkpoints in every container, written from the definitions of the containers."""

import json

import numpy as np
import pytest
import random_model
import safetensors.numpy
from flax import serialization

from jaxlens import errors, models
from jaxlens.models.checkpoints import checkpoint, layout

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 6,
    "n_positions": 7,
    "vocab_size": 11,
    "n_inner": 10,
}
UNTIED = {**CONFIG, "tie_word_embeddings": False}
FORMATS = ("msgpack", "safetensors", "orbax")
FILE = {"msgpack": "flax_model.msgpack", "safetensors": "model.safetensors"}


def make(config=CONFIG, seed=1):
    return models.parse(config), random_model.random_params(config, seed)


def assert_same_bits(found, expected):
    found, expected = layout.flat(found), layout.flat(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], value, err_msg=path, strict=True)


def torch_state(params, config=CONFIG):
    state = random_model.torch_names(params)
    if config.get("tie_word_embeddings", True):
        del state["lm_head.weight"]
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def flax_tree(params):
    """Flax's nested layout, written out from its definition: kernels are transposed."""
    h = params["h"]
    blocks = {}
    for layer in range(len(h["ln_1"]["scale"])):
        block = {
            norm: {key: value[layer] for key, value in h[norm].items()} for norm in ("ln_1", "ln_2")
        }
        for part in ("attn", "mlp"):
            block[part] = {
                name: {"kernel": dense["kernel"][layer].T.copy(), "bias": dense["bias"][layer]}
                for name, dense in h[part].items()
            }
        blocks[str(layer)] = block
    tree = {
        "transformer": {
            "wte": {"embedding": params["wte"]},
            "wpe": {"embedding": params["wpe"]},
            "h": blocks,
            "ln_f": params["ln_f"],
        }
    }
    if "weight" in params.get("lm_head", {}):
        tree["lm_head"] = {"kernel": params["lm_head"]["weight"].T.copy()}
    return tree


def write_config(directory, config=CONFIG):
    directory.mkdir(exist_ok=True, parents=True)
    (directory / "config.json").write_text(json.dumps(config))


def write_safetensors(directory, state, config=CONFIG, name="model.safetensors"):
    write_config(directory, config)
    safetensors.numpy.save_file(state, directory / name)
    return directory


def write_msgpack(directory, tree, config=CONFIG, name="flax_model.msgpack"):
    write_config(directory, config)
    (directory / name).write_bytes(serialization.msgpack_serialize(tree))
    return directory


def refused(source, kind=errors.DataError, load=None):
    """Loads what must not load; returns the message after checking its manners."""
    with pytest.raises(errors.JaxlensError) as caught:
        (load or checkpoint.load)(source)
    error = caught.value
    assert type(error) is kind, error
    assert "\n" not in error.message + error.hint
    return f"{error.message} | {error.hint}"


def write_shards(directory, fmt, config=CONFIG):
    """A checkpoint in two shards; returns weights, index and shard names."""
    _, params = make(config)
    named = torch_state(params) if fmt == "safetensors" else layout.flat(flax_tree(params))
    stem, suffix = FILE[fmt].split(".")
    files = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    index = {name: files[i % 2] for i, name in enumerate(named)}
    for file in files:
        part = {name: value for name, value in named.items() if index[name] == file}
        if fmt == "safetensors":
            write_safetensors(directory, part, config, file)
        else:
            write_msgpack(directory, layout.nested(part), config, file)
    write_index(directory, fmt, index)
    return params, index, files


def write_index(directory, fmt, index):
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    (directory / f"{FILE[fmt]}.index.json").write_text(text)
