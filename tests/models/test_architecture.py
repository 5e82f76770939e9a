import json
import math

import pytest

from jaxlens import errors, models, types
from jaxlens.models import activations, gpt2_config

MINIMAL = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 24,
    "n_positions": 32,
    "vocab_size": 97,
}


def without(*keys, **changes):
    return {k: v for k, v in {**MINIMAL, **changes}.items() if k not in keys}


def test_missing_options_take_gpt2_defaults():
    assert models.parse(MINIMAL) == types.Architecture(
        n_layer=2,
        n_embd=24,
        n_positions=32,
        vocab_size=97,
        options=gpt2_config.Options(
            n_head=3,
            n_inner=96,
            activation_function="gelu_new",
            layer_norm_epsilon=1e-5,
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
        ),
        tie_word_embeddings=True,
        bos_token_id=None,
        model_type="gpt2",
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_inner", 40),
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 1e-3),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("tie_word_embeddings", False),
        ("bos_token_id", 5),
    ],
)
def test_every_option_is_honoured(key, value):
    assert models.parse({**MINIMAL, key: value}).spec()[key] == value


def test_null_inner_size_means_four_times_the_width():
    assert models.parse({**MINIMAL, "n_inner": None}).options.n_inner == 96


def test_old_name_of_the_context_length_is_read():
    assert models.parse(without("n_positions", n_ctx=64)).n_positions == 64


@pytest.mark.parametrize("bos", [50256, 97, -1, None])
def test_bos_outside_of_the_vocabulary_is_none(bos):
    assert models.parse({**MINIMAL, "bos_token_id": bos}).bos_token_id is None


def test_missing_bos_of_the_full_vocabulary_is_end_of_text():
    assert models.parse({**MINIMAL, "vocab_size": 50257}).bos_token_id == 50256


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2Model", "FlaxGPT2LMHeadModel"])
def test_missing_model_type_is_taken_from_the_class_names(name):
    assert models.parse(without("model_type", architectures=[name])).n_layer == 2


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_every_computed_activation_is_accepted(name):
    parsed = models.parse({**MINIMAL, "activation_function": name})
    assert parsed.options.activation_function == name


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ([], "config.json"),
        (without("n_layer"), "n_layer"),
        (without("n_head"), "n_head"),
        (without("n_embd"), "n_embd"),
        (without("vocab_size"), "vocab_size"),
        (without("n_positions"), "n_ctx"),
        (without(n_layer=0), "n_layer"),
        (without(n_layer=-1), "n_layer"),
        (without(n_layer=10**9), "n_layer"),
        (without(n_layer=2.0), "n_layer"),
        (without(n_layer="2"), "n_layer"),
        (without(n_layer=True), "n_layer"),
        (without(n_head=5), "n_embd 24 is not a multiple of n_head 5"),
        (without(n_head=10**400), "n_head"),
        (without(n_embd=10**12), "n_embd"),
        (without(vocab_size=1), "vocab_size"),
        (without(vocab_size=10**15), "vocab_size"),
        (without(n_positions=0), "n_positions"),
        (without(n_positions=[32]), "n_positions"),
        (without(n_inner=-4), "n_inner"),
        (without(n_inner={}), "n_inner"),
        (without(activation_function="mish"), "mish"),
        (without(activation_function=3), "activation_function"),
        (without(layer_norm_epsilon=0), "layer_norm_epsilon"),
        (without(layer_norm_epsilon=-1e-5), "layer_norm_epsilon"),
        (without(layer_norm_epsilon=math.nan), "layer_norm_epsilon"),
        (without(layer_norm_epsilon=math.inf), "layer_norm_epsilon"),
        (without(layer_norm_epsilon=10**400), "layer_norm_epsilon"),
        (without(layer_norm_epsilon="1e-5"), "layer_norm_epsilon"),
        (without(layer_norm_epsilon=True), "layer_norm_epsilon"),
        (without(scale_attn_weights=1), "scale_attn_weights"),
        (without(scale_attn_by_inverse_layer_idx="no"), "scale_attn_by_inverse_layer_idx"),
        (without(tie_word_embeddings="false"), "tie_word_embeddings"),
        (without(bos_token_id="0"), "bos_token_id"),
        (without(bos_token_id=True), "bos_token_id"),
        (without(add_cross_attention=True), "add_cross_attention"),
        (without(is_encoder_decoder=True), "is_encoder_decoder"),
        (without(quantization_config={"bits": 4}), "quantization_config"),
        (without(pruned_heads={"0": [1]}), "pruned_heads"),
        *((without(model_type=name), name) for name in ("mamba", "mixtral", "qwen2_moe", "t5")),
        (without(model_type=7), "model_type"),
        (without("model_type"), "model_type"),
        (without("model_type", architectures="GPT2LMHeadModel"), "model_type"),
        (without("model_type", architectures=["MambaForCausalLM"]), "MambaForCausalLM"),
    ],
)
def test_what_is_malformed_or_unsupported_is_refused_by_name(config, named):
    with pytest.raises(errors.DataError) as caught:
        models.parse(config)
    assert named in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


def test_keys_that_are_not_on_the_list_have_no_effect():
    strange = {"auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": True, "_name": "x"}
    assert models.parse({**MINIMAL, **strange}) == models.parse(MINIMAL)


def test_dump_is_read_back_as_the_same_architecture():
    original = models.parse(
        without(
            n_inner=40,
            activation_function="silu",
            layer_norm_epsilon=3e-4,
            scale_attn_weights=False,
            scale_attn_by_inverse_layer_idx=True,
            tie_word_embeddings=False,
            bos_token_id=3,
        )
    )
    assert models.parse(json.loads(json.dumps(models.dump(original)))) == original


def test_dump_keeps_the_absence_of_a_bos():
    absent = models.parse({**MINIMAL, "bos_token_id": None, "vocab_size": 50257})
    assert models.parse(models.dump(absent)).bos_token_id is None


def test_dump_is_read_by_transformers_as_the_same_model():
    transformers = pytest.importorskip("transformers")
    dumped = models.dump(models.parse({**MINIMAL, "n_inner": 40}))
    theirs = transformers.GPT2Config.from_dict(dumped)
    assert theirs.model_type == "gpt2"
    assert models.parse(theirs.to_dict()) == models.parse(dumped)


def test_every_family_is_importable_and_has_the_whole_contract():
    names = [name for name in vars(models.Family) if not name.startswith("_")]
    assert {"parse", "dump", "leaves", "init", "residuals", "unembed"} < set(names)
    for model_type in models.FAMILIES:
        module = models.family(model_type)
        assert all(callable(getattr(module, name)) for name in names)
        assert module.TITLE


def test_unknown_family_is_refused_with_what_there_is():
    with pytest.raises(errors.DataError, match="mamba") as caught:
        models.family("mamba")
    assert "gpt2" in caught.value.hint
    assert caught.value.exit_code == 65
