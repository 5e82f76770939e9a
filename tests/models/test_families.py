"""A new family is one module and one line: everything else takes it as it takes GPT-2."""

import ast
import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
import test_house
import toy_family
from sweeps import PACKAGED, configure

import jaxlens
from jaxlens import errors, models, types
from jaxlens.bench import counts
from jaxlens.models import gpt2_config
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import verify
from jaxlens.sweep import run as sweep

SMALL = {"n_layer": 2, "n_embd": 24, "n_positions": 32, "vocab_size": 97}
ATOL = 1e-5
"""Of float32 residuals of order one after three small multiplies."""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "toy", "toy_family")


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of the toy, with a tokenizer."""
    architecture = models.parse(toy_family.CONFIG)
    params = models.init(architecture, 0)
    folder = tmp_path / "toy"
    checkpoint.save(folder, architecture, params, "safetensors", tokenizer_from=PACKAGED)
    return folder


def by_hand(params, tokens):
    """The residual streams in float64."""
    streams = [params["tokens"].astype(float)[tokens]]
    for up, down in zip(params["layers"]["up"], params["layers"]["down"], strict=True):
        streams.append(streams[-1] + np.tanh(streams[-1] @ up.astype(float)) @ down.astype(float))
    return np.stack(streams)


def test_checkpoints_have_the_names_of_the_family_and_load_with_the_same_bits(saved):
    stored = safetensors.numpy.load_file(saved / "model.safetensors")
    assert stored["model.layers.2.up.weight"].shape == (12, 8)
    assert set(stored) >= {"model.tokens.weight", "model.norm.weight", "out.weight"}
    loaded = checkpoint.load(saved)
    assert loaded.architecture == models.parse(toy_family.CONFIG)
    assert checkpoint.digest(loaded.params) == checkpoint.digest(
        models.init(loaded.architecture, 0)
    )


@pytest.mark.parametrize("fmt", ["msgpack", "orbax"])
def test_other_formats_keep_the_bits_too(saved, tmp_path, fmt):
    first = checkpoint.load(saved)
    checkpoint.save(tmp_path / fmt, first.architecture, first.params, fmt)
    assert checkpoint.digest(checkpoint.load(tmp_path / fmt).params) == checkpoint.digest(
        first.params
    )


@pytest.mark.parametrize("missing", ["model.layers.1.down.weight", "out.weight"])
def test_a_missing_tensor_is_refused_by_its_name(saved, missing):
    stored = safetensors.numpy.load_file(saved / "model.safetensors")
    del stored[missing]
    safetensors.numpy.save_file(stored, saved / "model.safetensors")
    with pytest.raises(errors.DataError, match=missing.removeprefix("model.")):
        checkpoint.load(saved)


def test_an_unexpected_tensor_is_refused_with_the_names_of_the_family(saved):
    stored = safetensors.numpy.load_file(saved / "model.safetensors")
    stored["h.0.attn.c_attn.weight"] = stored["out.weight"]
    safetensors.numpy.save_file(stored, saved / "model.safetensors")
    with pytest.raises(errors.DataError, match=r"unexpected tensor h\.0\.attn") as caught:
        checkpoint.load(saved)
    assert "the toy" in caught.value.hint


def test_the_lens_reads_it(saved):
    model = jaxlens.load_model(saved)
    assert "Toy" in repr(model) and "heads" not in repr(model)
    tokens = np.arange(20).reshape(2, 10)
    params = checkpoint.load(saved).params
    np.testing.assert_allclose(jaxlens.residuals(model, tokens), by_hand(params, tokens), atol=ATOL)
    readout = jaxlens.read_lens(model, tokens)
    assert readout.kl_final.shape == (4, 2, 10)
    assert (readout.rank_final[-1] == 1).all() and (readout.rank_final[0] > 1).any()


# The study's tallies know nothing of a family, and take most of a minute to compile.
@pytest.mark.parametrize("tallies", ["basic", pytest.param("study", marks=pytest.mark.long)])
def test_a_sweep_runs_verifies_and_records_it(saved, texts, tmp_path, tallies):
    out = tmp_path / "run"
    config = configure(saved, texts, out, **{"store.tallies": tallies})
    assert sweep.run(config).finished
    assert verify.verify(out).ok
    assert json.loads((out / "RUN.json").read_bytes())["model"]["architecture"] == {
        "bos_token_id": None,
        "model_type": "toy",
        "n_embd": 8,
        "n_layer": 3,
        "n_positions": 32,
        "tie_word_embeddings": False,
        "vocab_size": 4096,
        "width": 12,
    }
    with jaxlens.open_run(out) as run:
        # Of the token embedding, which is not the head.
        table = checkpoint.load(saved).params["tokens"].astype(float)
        expected = np.linalg.norm(table - table.mean(0), axis=1)[run["token"][:]]
        np.testing.assert_allclose(run["embedding_norm"][:], expected, rtol=1e-5)


def test_the_benchmark_counts_its_operations():
    architecture = models.parse(toy_family.CONFIG)
    assert counts.count_flops(architecture, 7)["forward"] == 4 * 3 * 8 * 12


def test_the_architecture_in_the_spec_of_a_gpt2_is_as_it_was_before_there_were_families():
    """A run that has begun is resumed only if its spec is the same to the byte."""
    parsed = models.parse({"model_type": "gpt2", "n_head": 3, "bos_token_id": 5, **SMALL})
    assert json.dumps(parsed.spec(), sort_keys=True) == (
        '{"activation_function": "gelu_new", "bos_token_id": 5, "layer_norm_epsilon": 1e-05, '
        '"n_embd": 24, "n_head": 3, "n_inner": 96, "n_layer": 2, "n_positions": 32, '
        '"scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true, '
        '"tie_word_embeddings": true, "vocab_size": 97}'
    )


def test_an_architecture_is_static_and_told_apart_by_its_options():
    one = models.parse({"model_type": "gpt2", "n_head": 3, **SMALL})
    other = dataclasses.replace(one, options=dataclasses.replace(one.options, n_head=4))
    assert len({one, other, dataclasses.replace(other, options=one.options)}) == 2


NEW = types.Architecture(
    **SMALL, options=gpt2_config.Options(n_head=3, n_inner=96), tie_word_embeddings=False
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: types.Architecture(
            n_layer=2, n_head=3, n_embd=24, n_positions=32, vocab_size=97, n_inner=96,
            tie_word_embeddings=False,
        ),
        lambda: types.Architecture(
            2, 3, 24, 32, 97, 96, "gelu_new", 1e-5, True, False, False, None
        ),
        lambda: dataclasses.replace(
            dataclasses.replace(NEW, options=gpt2_config.Options(n_head=1, n_inner=96)), n_head=3
        ),
    ],
    ids=["by name", "in order", "replaced"],
)  # fmt: skip
def test_flat_construction_works_for_one_version_with_a_warning(make):
    with pytest.warns(DeprecationWarning, match="option of the family"):
        assert make() == NEW


def test_flat_reading_works_for_one_version_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"Architecture\.options\.n_head"):
        assert NEW.n_head == 3
    with pytest.raises(AttributeError, match="n_heads"):
        NEW.n_heads  # noqa: B018
    with pytest.raises(TypeError):
        types.Architecture(**SMALL)


def test_nobody_but_models_names_a_family():
    """Imports and attribute access; words in texts for users may name GPT-2."""
    for path in test_house.MODULES:
        if path.relative_to(test_house.PACKAGE).parts[0] == "models":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names += [alias.name for alias in node.names] + (node.module or "").split(".")
            assert not {"gpt2", "gpt2_config"} & set(names), f"{path}:{node.lineno}"
