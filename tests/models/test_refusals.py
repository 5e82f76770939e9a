"""What is checked before anything runs."""

import checkpoints
import numpy as np
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint


def tampered(change):
    state = checkpoints.torch_state(checkpoints.make()[1])
    change(state)
    return state


BAD_STATES = {
    "missing layer tensor": (
        lambda s: s.pop("transformer.h.1.mlp.c_fc.bias"),
        "tensor h.1.mlp.c_fc.bias is missing",
    ),
    "missing embedding": (
        lambda s: s.pop("transformer.wte.weight"),
        "tensor wte.weight is missing",
    ),
    "missing norm": (lambda s: s.pop("transformer.ln_f.bias"), "tensor ln_f.bias is missing"),
    "unexpected": (
        lambda s: s.update({"transformer.h.0.attn.q_attn.weight": np.zeros(3, np.float32)}),
        "unexpected tensor transformer.h.0.attn.q_attn.weight",
    ),
    "unknown head": (
        lambda s: s.update({"reward.weight": np.zeros((2, 6), np.float32)}),
        "unexpected tensor reward.weight",
    ),
    "layer beyond the last": (
        lambda s: s.update({"transformer.h.2.ln_1.bias": np.zeros(6, np.float32)}),
        "config.json says n_layer 2",
    ),
    "layer with leading zero": (
        lambda s: s.update({"transformer.h.01.ln_1.bias": np.zeros(6, np.float32)}),
        "unexpected tensor transformer.h.01.ln_1.bias",
    ),
    "two names of one tensor": (
        lambda s: s.update({"wte.weight": s["transformer.wte.weight"].copy()}),
        "is there twice",
    ),
    "wrong shape": (
        lambda s: s.update({"transformer.wpe.weight": np.zeros((8, 6), np.float32)}),
        "tensor transformer.wpe.weight has shape [8, 6], expected [7, 6]",
    ),
    "transposed kernel": (
        lambda s: s.update({"transformer.h.0.attn.c_attn.weight": np.zeros((18, 6), np.float32)}),
        "tensor transformer.h.0.attn.c_attn.weight has shape [18, 6], expected [6, 18]",
    ),
    "integers": (
        lambda s: s.update({"transformer.ln_f.bias": np.zeros(6, np.int32)}),
        "tensor transformer.ln_f.bias has dtype int32",
    ),
    "booleans": (
        lambda s: s.update({"transformer.ln_f.bias": np.zeros(6, bool)}),
        "tensor transformer.ln_f.bias has dtype bool",
    ),
    "NaN": (
        lambda s: s["transformer.h.1.ln_2.weight"].__setitem__(3, np.nan),
        "tensor transformer.h.1.ln_2.weight holds values that are not finite",
    ),
    "infinity": (
        lambda s: s["transformer.wte.weight"].__setitem__((0, 0), -np.inf),
        "tensor transformer.wte.weight holds values that are not finite",
    ),
    "too large for float32": (
        lambda s: s.update({"transformer.ln_f.bias": np.full(6, 1e300)}),
        "tensor transformer.ln_f.bias holds values that are not finite",
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_bad_tensor_is_refused_with_its_name_and_file(tmp_path, case):
    change, named = BAD_STATES[case]
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, tampered(change)))
    assert named in message
    assert "model.safetensors" in message


def test_untied_model_without_a_head_is_refused(tmp_path):
    message = checkpoints.refused(
        checkpoints.write_safetensors(
            tmp_path, checkpoints.torch_state(checkpoints.make()[1]), checkpoints.UNTIED
        )
    )
    assert "tensor lm_head.weight is missing" in message


def test_more_layers_in_the_config_than_in_the_weights_are_told(tmp_path):
    state = checkpoints.torch_state(checkpoints.make()[1])
    config = {**checkpoints.CONFIG, "n_layer": 3}
    message = checkpoints.refused(checkpoints.write_safetensors(tmp_path, state, config))
    assert "tensor h.2.ln_1.weight is missing | config.json says n_layer 3" in message


def test_flax_tensors_are_named_as_flax_names_them(tmp_path):
    tree = checkpoints.flax_tree(checkpoints.make()[1])
    del tree["transformer"]["h"]["1"]["attn"]["c_proj"]["kernel"]
    assert "tensor h/1/attn/c_proj/kernel is missing" in checkpoints.refused(
        checkpoints.write_msgpack(tmp_path, tree)
    )


def test_config_of_another_model_is_told_by_shapes(tmp_path):
    directory = checkpoints.write_safetensors(
        tmp_path,
        checkpoints.torch_state(checkpoints.make()[1]),
        {**checkpoints.CONFIG, "vocab_size": 12},
    )
    assert "different models" in checkpoints.refused(directory)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "3", "NaN", "[" * 10**5, '{"n_layer": 1, "n_layer": 2}']
)
def test_malformed_config_is_refused(tmp_path, text):
    checkpoint.save(tmp_path, *checkpoints.make(), "msgpack")
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in checkpoints.refused(tmp_path)


def test_config_that_is_no_text_is_refused(tmp_path):
    checkpoint.save(tmp_path, *checkpoints.make(), "msgpack")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\xfd\x00" * 9)
    assert "config.json" in checkpoints.refused(tmp_path)


def test_missing_config_is_named(tmp_path):
    checkpoint.save(tmp_path, *checkpoints.make(), "safetensors")
    (tmp_path / "config.json").unlink()
    assert "no config.json" in checkpoints.refused(tmp_path, errors.MissingError)
