"""What is Gemma's own: gains stored as what they exceed 1 by, files that read images, defaults."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import transformers
from families import CASES
from families.weights import random_weights
from safetensors.numpy import load_file, save_file

from jaxlens import config, errors, models
from jaxlens.lens import options, pallas, tuning, unembedding
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint
from jaxlens.sweep import resolve

GEMMA2 = CASES["gemma2"][1]


def test_the_stored_gains_survive_and_the_lens_has_the_real_ones(tmp_path):
    architecture = models.parse(GEMMA2)
    params = random_weights(architecture)
    # Adding 1 to these and taking it away again would change their last bits.
    params["norm"] = np.float32(1e-3) * params["norm"]
    checkpoint.save(tmp_path / "new", architecture, params, "safetensors")
    found = checkpoint.load(tmp_path / "new").params
    jax.tree.map(np.testing.assert_array_equal, found, params)
    np.testing.assert_array_equal(
        models.unembed(found, architecture).scale, np.float32(1) + params["norm"]
    )


def test_gains_are_not_rounded_with_the_weights():
    architecture = models.parse(GEMMA2)
    params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), random_weights(architecture))
    scale = models.unembed(params, architecture).scale
    assert scale.dtype == np.float32
    np.testing.assert_array_equal(scale, np.float32(1) + params["norm"].astype(np.float32))


@pytest.mark.parametrize(
    ("given", "theirs"),
    [
        ({"model_type": "gemma"}, transformers.GemmaConfig),
        ({"model_type": "gemma2"}, transformers.Gemma2Config),
        ({"model_type": "gemma3_text"}, transformers.Gemma3TextConfig),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 4}, transformers.Gemma3TextConfig),
    ],
)
def test_what_a_file_leaves_out_is_as_in_transformers(given, theirs):
    sizes = {"num_hidden_layers": 13, "hidden_size": 32, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 8, "vocab_size": 300}
    sizes |= {"max_position_embeddings": 128}
    own = models.parse(given | sizes)
    written = theirs(**{k: v for k, v in (given | sizes).items() if k != "model_type"}).to_dict()
    assert models.parse(written) == own
    # And the other way round: what is written here is the same to transformers.
    back = theirs(**models.dump(own)).to_dict()
    for key in ("layer_types", "rope_parameters", "query_pre_attn_scalar", "head_dim"):
        assert back.get(key) == written.get(key), key
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "tie_word_embeddings"):
        assert back.get(key) == written.get(key), key


def test_of_a_model_that_reads_images_the_text_model_is_read(tmp_path, caplog):
    text = CASES["gemma3"][1]
    architecture = models.parse(text)
    checkpoint.save(tmp_path / "text", architecture, random_weights(architecture), "safetensors")
    state = load_file(tmp_path / "text" / "model.safetensors")
    both = {f"language_model.{name}": value for name, value in state.items()}
    both["vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"] = np.ones((2, 3), np.float32)
    both["multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(3, np.float32)
    (tmp_path / "both").mkdir()
    save_file(both, tmp_path / "both" / "model.safetensors")
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}}
    (tmp_path / "both" / "config.json").write_text(json.dumps(whole))
    with caplog.at_level("INFO"):
        found = checkpoint.load(tmp_path / "both")
    assert found.architecture == architecture
    expected = checkpoint.load(tmp_path / "text").params
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    assert "reads images: the text model alone is read" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"sliding_window": None}, "sliding_window is missing"),
        ({"layer_types": ["full_attention"]}, "layer_types must name"),
        ({"model_type": "gemma3", "text_config": None}, "text_config must be"),
        ({"model_type": "gemma3_text", "rope_parameters": {"factor": 2}}, "rope_parameters must"),
        ({"final_logit_softcapping": 0}, "final_logit_softcapping must be between"),
        ({"query_pre_attn_scalar": "256"}, "query_pre_attn_scalar must be a number"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change, message):
    with pytest.raises(errors.DataError, match=message):
        models.parse(GEMMA2 | change)


def test_the_gate_sees_a_lens_that_centres_before_the_cap():
    architecture = models.parse(GEMMA2)
    params = jax.device_put(random_weights(architecture))
    params["wte"] = params["wte"] + 0.5  # a mean row
    model = loading.Model(architecture, params)
    assert loading.check_identity(model) < 1e-4
    head, request = models.unembed(params, architecture), options.Options(())
    centred = unembedding.tile_unembedding(head.replace(softcap=None), request)
    with pytest.raises(errors.NumericalError, match="identity gate"):
        loading.check_identity(model, request=request, tiles=centred.replace(softcap=10.0))


def test_the_kernel_refuses_a_cap_by_name():
    sizes = 11, 768, 5, "tpu"
    asked = options.Options(("rank_input",))
    assert pallas.is_supported(asked, *sizes)
    assert not pallas.is_supported(asked, *sizes, 30.0)
    with pytest.raises(errors.ConfigError, match=r"softcap of 30$"):
        pallas.require(asked, *sizes, 30.0)


def resolved(architecture, platform="cpu", **settings):
    return resolve.resolve(config.load([], {}, settings), architecture, None, platform)


def test_a_run_takes_the_tiled_lens_where_the_kernel_reads_no_caps(monkeypatch):
    monkeypatch.setattr(tuning, "TPU", dataclasses.replace(tuning.TPU, implementation="pallas"))
    architecture = models.parse(GEMMA2)
    assert resolved(architecture, "tpu").config.lens.implementation == "tiled"
    with pytest.raises(errors.ConfigError, match="softcap"):
        resolved(architecture, "tpu", **{"lens.implementation": "pallas"})
    uncapped = models.parse(GEMMA2 | {"final_logit_softcapping": None})
    assert resolved(uncapped, "tpu").config.lens.implementation == "pallas"


@pytest.mark.parametrize("tallies", ["basic", "study"])
def test_totals_of_the_largest_gemmas_fit_a_shard(tallies):
    sizes = {"num_hidden_layers": 62, "hidden_size": 5376, "vocab_size": 262_208}
    architecture = models.parse(GEMMA2 | sizes)
    assert resolved(architecture, **{"store.tallies": tallies}).architecture == architecture
    with pytest.raises(errors.ConfigError, match="a vocabulary of 1048577 tokens"):
        resolved(architecture.replace(vocab_size=2**20 + 1))
    with pytest.raises(errors.ConfigError, match="take 1025 MiB"):
        resolved(architecture.replace(vocab_size=2**20, n_layer=126))
