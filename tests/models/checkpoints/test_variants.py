"""One model under other names and in other forms: each gives the same parameters, or a reason."""

import dataclasses
import logging
import pathlib

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens import errors, models
from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.models.checkpoints import layout, names

pytestmark = pytest.mark.usefixtures("also_streamed")

# Width and inner width are equal: of a block's kernels only c_attn tells how it is stored.
SQUARE = {**checkpoints.CONFIG, "n_inner": 6}
KERNELS = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def state(config=checkpoints.CONFIG, seed=1):
    _, params = checkpoints.make(config, seed)
    return params, checkpoints.torch_state(params, config)


def turned(state):
    """As ``torch.nn.Linear`` stores matrices."""
    return {
        name: np.ascontiguousarray(value.T) if name.endswith(KERNELS) else value
        for name, value in state.items()
    }


def without_biases(state):
    return {name: value for name, value in state.items() if not name.endswith(".bias")}


@pytest.fixture
def notes(caplog):
    logger = logging.getLogger("jaxlens")
    before = logger.propagate, logger.level
    logger.propagate = True
    caplog.set_level(logging.INFO, "jaxlens")
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before[0]
    logger.setLevel(before[1])


PREFIXES = [f"{part}." for part in (*names.WRAPPERS, *names.TRANSPARENT)]
PREFIXES += ["base_model.model.", "module._orig_mod.transformer.", "model.lm._orig_mod.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_load_under_every_wrapper(tmp_path, prefix):
    params, found = state(checkpoints.UNTIED)
    wrapped = {prefix + name: value for name, value in found.items()}
    directory = checkpoints.write_safetensors(tmp_path, wrapped, checkpoints.UNTIED)
    checkpoints.assert_same_bits(weights.load(directory).params, params)


def test_compiled_blocks_load(tmp_path):
    params, found = state()
    found = {name.replace(".h.1.", ".h.1._orig_mod."): value for name, value in found.items()}
    assert any("_orig_mod" in name for name in found)
    loaded = weights.load(checkpoints.write_safetensors(tmp_path, found)).params
    checkpoints.assert_same_bits(loaded, params)


def test_masks_are_dropped_under_wrappers(tmp_path):
    params, found = state()
    found = {f"module.{name}": value for name, value in found.items()}
    found["module.transformer.h.0.attn.bias"] = np.ones((1, 1, 7, 7), bool)
    loaded = weights.load(checkpoints.write_safetensors(tmp_path, found)).params
    checkpoints.assert_same_bits(loaded, params)


@pytest.mark.parametrize("outer", [("params",), ("params", "params"), ("model", "params")])
def test_flax_trees_load_under_wrappers(tmp_path, outer):
    _, params = checkpoints.make(checkpoints.UNTIED)
    tree = checkpoints.flax_tree(params)
    for name in outer:
        tree = {name: tree}
    directory = checkpoints.write_msgpack(tmp_path, tree, checkpoints.UNTIED)
    checkpoints.assert_same_bits(weights.load(directory).params, params)


def test_tensor_under_two_wrappers_is_refused_with_both_names(tmp_path):
    _, found = state()
    found["module.wte.weight"] = found["transformer.wte.weight"].copy()
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, found))
    assert "module.wte.weight" in message and "transformer.wte.weight" in message


@pytest.mark.parametrize("prefix", ["ema_model.", "encoder.", "transformers.", "h."])
def test_unknown_prefix_is_refused_with_the_names_that_are_known(tmp_path, prefix):
    _, found = state()
    found = {prefix + name: value for name, value in found.items()}
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, found))
    assert f"unexpected tensor {prefix}transformer" in message
    assert "h.0.attn.c_attn.weight" in message and "docs/models.md" in message


def test_no_wrapper_is_part_of_a_name():
    """Or stripping would change what a name means."""
    parts = {
        p
        for leaf in models.leaves(models.parse(checkpoints.CONFIG)).leaves
        for p in (*leaf.torch.split("."), *leaf.flax.split("/"))
    }
    tables = {*names.WRAPPERS, *names.TRANSPARENT, *names.OTHER_HEADS, *names.NO_MODEL}
    tables |= names.OTHER_INPUTS.keys()
    assert not tables & (parts | {"h"})


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_tied_embedding_under_the_heads_name_alone_loads(tmp_path, fmt, notes):
    params, found = state()
    if fmt == "safetensors":
        found["lm_head.weight"] = found.pop("transformer.wte.weight")
        checkpoints.write_safetensors(tmp_path, found)
    else:
        tree = checkpoints.flax_tree(params)
        tree["lm_head"] = {"kernel": tree["transformer"].pop("wte")["embedding"].T.copy()}
        checkpoints.write_msgpack(tmp_path, tree)
    checkpoints.assert_same_bits(weights.load(tmp_path).params, params)
    assert any("under the name lm_head" in note for note in notes())


def test_untied_head_never_stands_for_the_embedding(tmp_path):
    _, found = state(checkpoints.UNTIED)
    del found["transformer.wte.weight"]
    message = checkpoints.refused(
        checkpoints.write_safetensors(tmp_path, found, checkpoints.UNTIED)
    )
    assert "tensor wte.weight is missing" in message and "tie_word_embeddings" in message


OTHER_HEADS = ["score.weight", "v_head.summary.weight", "classifier.bias", "module.v_head.0.weight"]


@pytest.mark.parametrize("config", [checkpoints.CONFIG, checkpoints.UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("head", OTHER_HEADS)
def test_heads_of_other_tasks_are_ignored_where_the_unembedding_is_known(
    tmp_path, head, config, notes
):
    params, found = state(config)
    found[head] = np.zeros((2, 6), np.int8)  # never looked at
    loaded = weights.load(checkpoints.write_safetensors(tmp_path, found, config)).params
    checkpoints.assert_same_bits(loaded, params)
    (note,) = notes()
    assert head in note
    assert ("is lm_head" in note) == (config is checkpoints.UNTIED)


@pytest.mark.parametrize("head", OTHER_HEADS)
def test_head_of_another_task_is_no_unembedding(tmp_path, head):
    _, found = state()
    found[head] = np.zeros((2, 6), np.float32)
    message = checkpoints.refused(
        checkpoints.write_safetensors(tmp_path, found, checkpoints.UNTIED)
    )
    assert "tensor lm_head.weight is missing" in message
    assert head in message


NO_MODEL = {
    "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight": "merge",
    "base_model.model.transformer.h.0.attn.c_attn.base_layer.weight": "merge",
    "transformer.h.0.attn.c_attn.weight.absmax": "dequantise",
    "blocks.0.attn.W_Q": "TransformerLens",
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_what_is_no_plain_model_is_refused_with_the_remedy(tmp_path, name):
    _, found = state()
    found[name] = np.zeros((2, 6), np.float32)
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, found))
    assert name in message and NO_MODEL[name] in message


@pytest.mark.parametrize("config", [checkpoints.CONFIG, SQUARE], ids=["plain", "square"])
def test_kernels_of_torch_linear_are_turned_even_where_they_are_square(tmp_path, config, notes):
    params, found = state(config)
    square = params["h"]["attn"]["c_proj"]["kernel"]
    assert not np.array_equal(square, square.swapaxes(1, 2))
    directory = checkpoints.write_safetensors(tmp_path, turned(found), config)
    checkpoints.assert_same_bits(weights.load(directory).params, params)
    (note,) = notes()
    assert "[out, in]" in note and "gelu_new" in note


@pytest.mark.parametrize("config", [checkpoints.CONFIG, SQUARE], ids=["plain", "square"])
def test_kernels_of_flax_dense_are_recognised(tmp_path, config, notes):
    _, params = checkpoints.make(config)
    tree = checkpoints.flax_tree(params)
    for block in tree["transformer"]["h"].values():
        for dense in (*block["attn"].values(), *block["mlp"].values()):
            dense["kernel"] = dense["kernel"].T.copy()
    directory = checkpoints.write_msgpack(tmp_path, tree, config)
    checkpoints.assert_same_bits(weights.load(directory).params, params)
    assert "[in, out]" in notes()[0]


@pytest.mark.parametrize("config", [checkpoints.CONFIG, SQUARE], ids=["plain", "square"])
@pytest.mark.parametrize("base", [False, True], ids=["conv1d", "linear"])
def test_one_kernel_turned_is_damage(tmp_path, config, base):
    _, found = state(config)
    name = "transformer.h.1.attn.c_attn.weight"
    changed = {**found, name: np.ascontiguousarray(found[name].T)}
    # Of two kernels that tell, neither is in the majority: either may be named.
    name = "c_attn.weight has shape" if config is SQUARE else f"{name} has shape"
    message = checkpoints.refused(
        checkpoints.write_safetensors(tmp_path, turned(changed) if base else changed, config)
    )
    assert name in message and "one orientation" in message


@pytest.mark.parametrize("groups", [("linear",), ("norm",), ("linear", "norm")])
def test_biases_that_are_left_out_as_a_group_are_zero(tmp_path, groups, notes):
    params, found = state()
    for name in [name for name in found if name.endswith(".bias")]:
        if ("norm" if "ln_" in name else "linear") in groups:
            del found[name]
    expected = layout.flat(params)
    for path, value in expected.items():
        if path.endswith("/bias") and ("norm" if "ln_" in path else "linear") in groups:
            expected[path] = np.zeros_like(value)
    loaded = weights.load(checkpoints.write_safetensors(tmp_path, found)).params
    checkpoints.assert_same_bits(loaded, layout.nested(expected))
    assert len(notes()) == len(groups)


@pytest.mark.parametrize("kept", ["h.0.attn.c_attn.bias", "h.1.ln_2.bias", "ln_f.bias"])
def test_one_bias_left_means_that_the_others_are_missing(tmp_path, kept):
    _, found = state()
    found = {
        name: value
        for name, value in found.items()
        if not name.endswith(".bias") or name == f"transformer.{kept}"
    }
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, found))
    assert ".bias is missing" in message and "together may have none" in message


NANOGPT = {"n_layer": 2, "n_head": 2, "n_embd": 6, "block_size": 7, "vocab_size": 11}
NANOGPT |= {"bias": False, "dropout": 0.0}


def nanogpt():
    config = {key: value for key, value in checkpoints.CONFIG.items() if key != "n_inner"}
    params, found = state(config)
    found = without_biases(turned(found))
    for path, value in layout.flat(params).items():
        if path.endswith("/bias"):
            value[:] = 0
    return params, {**found, "lm_head.weight": found["transformer.wte.weight"]}


def test_nanogpts_configuration_means_gpt2_with_the_exact_gelu():
    architecture = models.parse(NANOGPT)
    assert (architecture.n_positions, architecture.options.activation_function) == (7, "gelu")
    assert architecture.options.n_inner == 24
    # minGPT has the same key, but states a type and computes the approximation.
    mingpt = models.parse({**NANOGPT, "model_type": "gpt2"})
    assert (mingpt.n_positions, mingpt.options.activation_function) == (7, "gelu_new")


@pytest.mark.parametrize("size", ["gpt-mini", "gpt-nano", "gpt2-xl", "gopher-44m", None])
def test_mingpts_names_of_sizes_mean_gpt2(size):
    sizes = {key: value for key, value in NANOGPT.items() if key not in ("bias", "dropout")}
    assert models.parse({**sizes, "model_type": size}) == models.parse(
        {**sizes, "model_type": "gpt2"}
    )
    with pytest.raises(errors.DataError, match="mamba"):
        models.parse({**sizes, "model_type": "mamba"})


def test_configuration_that_leaves_the_activation_open_is_refused():
    """build-nanogpt's, whose blocks compute the approximation."""
    sizes = {key: value for key, value in NANOGPT.items() if key not in ("bias", "dropout")}
    with pytest.raises(errors.DataError, match="activation_function"):
        models.parse(sizes)
    told = models.parse({**sizes, "activation_function": "gelu_new"})
    assert (told.n_positions, told.options.activation_function) == (7, "gelu_new")


def test_nanogpts_checkpoint_loads_from_memory_with_its_own_configuration():
    params, found = nanogpt()
    found = {f"_orig_mod.{name}": value for name, value in found.items()}
    whole = {
        "model": found,
        "optimizer": {"state": {0: {"exp_avg": np.zeros(3)}}, "param_groups": [{}]},
        "model_args": NANOGPT,
        "iter_num": 100,
        "best_val_loss": np.float32(1),
        "config": {"out_dir": "out"},
    }
    checkpoint = weights.from_state_dict(whole)
    checkpoints.assert_same_bits(checkpoint.params, params)
    assert checkpoint.architecture.options.activation_function == "gelu"


def test_nanogpts_weights_load_from_a_folder(tmp_path):
    params, found = nanogpt()
    directory = checkpoints.write_safetensors(tmp_path, found, NANOGPT)
    checkpoints.assert_same_bits(weights.load(directory).params, params)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "module"])
def test_training_checkpoints_load_from_memory(key):
    params, found = state()
    whole = {key: found, "optimizer": {"wte": {}}, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    checkpoints.assert_same_bits(weights.from_state_dict(whole, checkpoints.CONFIG).params, params)


def test_train_state_of_flax_loads_from_memory():
    _, params = checkpoints.make(checkpoints.UNTIED)
    tree = checkpoints.flax_tree(params)
    whole = {"step": 3, "params": {"params": tree}, "opt_state": {"0": {"mu": tree}}}
    loaded = weights.from_state_dict(jax.tree.map(jnp.asarray, whole), checkpoints.UNTIED)
    checkpoints.assert_same_bits(loaded.params, params)


def test_container_is_not_opened_where_weights_lie_beside_it():
    _, params = checkpoints.make(checkpoints.UNTIED)
    tree = checkpoints.flax_tree(params)
    loaded = weights.from_state_dict(
        {"model": tree["transformer"], "lm_head": tree["lm_head"]}, checkpoints.UNTIED
    )
    checkpoints.assert_same_bits(loaded.params, params)


@dataclasses.dataclass
class GPTConfig:
    """nanoGPT's."""

    block_size: int = 7
    vocab_size: int = 11
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 6
    dropout: float = 0.0
    bias: bool = False


@pytest.mark.filterwarnings("ignore")  # transformers warns at import
def test_configuration_objects_are_taken_for_mappings():
    import transformers

    params, found = state()
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=6, n_positions=7, vocab_size=11, n_inner=10
    )
    checkpoints.assert_same_bits(weights.from_state_dict(found, config).params, params)
    assert models.parse(GPTConfig()) == models.parse(NANOGPT)


@pytest.mark.parametrize("config", [None, 3, "config.json", GPTConfig])
def test_what_is_no_configuration_is_refused(config):
    kind = errors.ConfigError if config is None else errors.DataError
    message = checkpoints.refused(
        state()[1], kind, load=lambda found: weights.from_state_dict(found, config)
    )
    assert "config" in message


def test_documentation_lists_every_wrapper_and_head():
    page = (pathlib.Path(__file__).parents[3] / "docs/models.md").read_text()
    for name in (
        *names.WRAPPERS,
        *names.TRANSPARENT,
        *names.OTHER_HEADS,
        *names.OTHER_INPUTS,
    ):
        assert f"`{name}`" in page or f"`{name}." in page or f"`{name}/" in page, name
