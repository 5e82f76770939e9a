"""GPT-NeoX: what its checkpoints hold beside the weights, and what its configuration may say."""

import numpy as np
import pytest
from families import CASES, weights
from sweeps import PACKAGED, configure

import jaxlens
from jaxlens import errors, models
from jaxlens.models.checkpoints import checkpoint, stack
from jaxlens.store import verify
from jaxlens.sweep import run as sweep

CONFIG = CASES["gpt_neox"][1]


def pythia(**changes):
    """A configuration as Pythia's files have it, on a small scale."""
    return CONFIG | {"rotary_emb_base": 10000, "rotary_pct": 0.25, "eos_token_id": 0} | changes


@pytest.fixture
def state():
    """Names and tensors as transformers writes them."""
    architecture = models.parse(CONFIG)
    expected = models.leaves(architecture)
    return dict(stack.unstack(weights.random_weights(architecture), expected, "torch"))


def test_names_are_those_of_transformers(state):
    shapes = {name: value.shape for name, value in state.items() if ".layers." not in name}
    assert shapes == {
        "gpt_neox.embed_in.weight": (4096, 32),
        "gpt_neox.final_layer_norm.weight": (32,),
        "gpt_neox.final_layer_norm.bias": (32,),
        "embed_out.weight": (4096, 32),
    }
    first = "gpt_neox.layers.0."
    assert {
        name.removeprefix(first): value.shape
        for name, value in state.items()
        if name.startswith(first)
    } == {
        "input_layernorm.weight": (32,),
        "input_layernorm.bias": (32,),
        "attention.query_key_value.weight": (96, 32),
        "attention.query_key_value.bias": (96,),
        "attention.dense.weight": (32, 32),
        "attention.dense.bias": (32,),
        "post_attention_layernorm.weight": (32,),
        "post_attention_layernorm.bias": (32,),
        "mlp.dense_h_to_4h.weight": (40, 32),
        "mlp.dense_h_to_4h.bias": (40,),
        "mlp.dense_4h_to_h.weight": (32, 40),
        "mlp.dense_4h_to_h.bias": (32,),
    }


def test_buffers_of_old_checkpoints_are_no_weights(state):
    loaded = checkpoint.from_state_dict(state, CONFIG)
    for layer in range(3):
        name = f"gpt_neox.layers.{layer}.attention"
        state[f"{name}.bias"] = np.tril(np.ones((1, 1, 64, 64), bool))
        state[f"{name}.masked_bias"] = np.array(-1e9, np.float32)
        state[f"{name}.rotary_emb.inv_freq"] = np.ones(1, np.float32)
    assert checkpoint.from_state_dict(state, pythia()).sha256 == loaded.sha256


@pytest.mark.parametrize("prefix", ["", "module.gpt_neox."])
def test_names_without_the_prefix_and_inside_of_wrappers_are_read(state, prefix):
    loaded = checkpoint.from_state_dict(state, CONFIG)
    other = {name.replace("gpt_neox.", prefix): value for name, value in state.items()}
    assert checkpoint.from_state_dict(other, CONFIG).sha256 == loaded.sha256


def test_the_head_is_read_under_the_name_of_models_in_memory_too(state):
    loaded = checkpoint.from_state_dict(state, CONFIG)
    both = state | {"lm_head.weight": state["embed_out.weight"].copy()}
    with pytest.raises(errors.DataError, match="is there twice"):
        checkpoint.from_state_dict(both, CONFIG)
    del both["embed_out.weight"]
    assert checkpoint.from_state_dict(both, CONFIG).sha256 == loaded.sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"rotary_emb_base": None, "rope_theta": 500.0},
        {"rotary_emb_base": 500.0, "rope_theta": 10000.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
)
def test_the_base_of_the_frequencies_is_read_under_every_name(changes):
    assert models.parse(pythia(**changes)).options.rope.theta == 500.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"rotary_pct": 0.4}, "rotary_pct 0.4 turns 3 of 8 entries"),
        ({"rotary_pct": 1.5}, "rotary_pct must be between 0 and 1"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"hidden_act": "gelu_10"}, "hidden_act 'gelu_10'"),
        ({"use_parallel_residual": "yes"}, "use_parallel_residual must be true or false"),
    ],
)
def test_what_it_cannot_compute_is_refused(changes, said):
    with pytest.raises(errors.DataError) as caught:
        models.parse(pythia(**changes))
    assert said in caught.value.message


@pytest.mark.long
def test_a_sweep_takes_a_vocabulary_larger_than_the_tokenizer(texts, tmp_path):
    architecture = models.parse(pythia(vocab_size=4224))
    folder, out = tmp_path / "model", tmp_path / "run"
    params = weights.random_weights(architecture)
    checkpoint.save(folder, architecture, params, "safetensors", tokenizer_from=PACKAGED)
    assert sweep.run(configure(folder, texts, out, **{"store.tallies": "basic"})).finished
    assert verify.verify(out).ok
    with jaxlens.open_run(out) as run:
        assert run["rank_final"].shape[1] == 4
        assert (run["rank_final"][:, -1] == 1).all()
