"""The forward pass against PyTorch's (goldens), Flax's (shared fixtures) and the oracle."""

import functools
import json
import pathlib

import jax
import numpy as np
import oracle
import pytest
import random_model

from jaxlens.lens import decoders, numerics
from jaxlens.models import gpt2
from jaxlens.models.checkpoints import checkpoint as weights

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.npz"))

# Relative to the largest magnitude. Two float32 implementations differ by 1e-6 here; the nearest
# wrong model (exact for tanh GELU) by 2e-4.
RELATIVE = 1e-4
# The oracle is float64, so what is left is PyTorch's own rounding.
ORACLE_RELATIVE = 5e-6


@pytest.fixture
def flax(shared):
    folder = shared / "prototypes" / "flax_gpt2"
    if not folder.is_dir():
        pytest.skip("the Flax fixtures are not in the shared folder")
    return folder


@functools.cache
def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def seeded(name):
    """The configuration and stacked weights that a golden was made from."""
    stored = golden(name)
    config = json.loads(str(stored["config"]))
    return config, random_model.random_params(config, int(stored["seed"]))


def sampled(stored, residuals, logits):
    positions = stored["positions"]
    width = stored["residuals"].shape[-1]
    return residuals[:, :, positions, :width], logits[:, positions, :: int(stored["stride"])]


def engine(checkpoint, tokens, positions=None, segments=None):
    """Residuals and final logits of the engine, as NumPy."""
    architecture = checkpoint.architecture

    @jax.jit
    def run(params, tokens, positions, segments):
        streams = gpt2.residuals(params, architecture, tokens, positions, segments)
        unembed = gpt2.unembed(params, architecture)
        last = decoders.normalise(streams[-1:], unembed)[0]
        return streams, last @ unembed.weight.T

    with numerics.matmul_precision("float32"):
        streams, logits = run(checkpoint.params, tokens, positions, segments)
    bias = checkpoint.params.get("lm_head", {}).get("bias")
    return np.asarray(streams), np.asarray(logits) + (0 if bias is None else bias)


def exact(params, config, tokens, **rest):
    """The same from the oracle."""
    streams = oracle.residuals(params, config, tokens, **rest)
    weight, bias = oracle.head(params)
    last = oracle.layer_norm(streams[-1], params["ln_f"], config["layer_norm_epsilon"])
    logits = last @ np.asarray(weight, np.float64).T
    return streams, logits if bias is None else logits + np.asarray(bias, np.float64)


def assert_close(found, expected, largest, relative):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * largest


# The default configuration is the largest; of the activations four have a short case, and relu one
# with other options.
LONG = {"default"} | {
    f"activation_{name}" for name in ("gelu_fast", "gelu_pytorch_tanh", "relu", "swish", "tanh")
}
assert set(CASES) >= LONG


@pytest.fixture(
    scope="module", params=[pytest.param(c, marks=[pytest.mark.long] * (c in LONG)) for c in CASES]
)
def case(request):
    """One golden with its configuration and weights, which are made only once."""
    return golden(request.param), *seeded(request.param)


def test_golden_is_about_these_weights(case):
    stored, _, params = case
    assert random_model.fingerprint(params) == str(stored["weights_sha256"])


def test_engine_agrees_with_pytorch(case):
    stored, config, params = case
    checkpoint = weights.from_state_dict(random_model.torch_names(params), config)
    streams, logits = engine(checkpoint, stored["tokens"])
    found, found_logits = sampled(stored, streams, logits)
    largest = float(stored["largest_residual"])
    assert_close(found, stored["residuals"], largest, RELATIVE)
    assert_close(found_logits, stored["logits"], float(stored["largest_logit"]), RELATIVE)
    norms = np.linalg.norm(streams.astype(np.float64), axis=-1)
    assert_close(norms, stored["residual_norms"], stored["residual_norms"].max(), RELATIVE)
    np.testing.assert_array_equal(logits.argmax(-1), stored["argmax"])


def test_oracle_agrees_with_pytorch(case):
    stored, config, params = case
    streams, logits = exact(params, config, stored["tokens"])
    found, found_logits = sampled(stored, streams, logits)
    assert_close(found, stored["residuals"], float(stored["largest_residual"]), ORACLE_RELATIVE)
    assert_close(found_logits, stored["logits"], float(stored["largest_logit"]), ORACLE_RELATIVE)
    peak = logits.max(-1)
    log_sum_exp = np.log(np.exp(logits - peak[..., None]).sum(-1)) + peak
    np.testing.assert_allclose(log_sum_exp, stored["log_sum_exp"], rtol=ORACLE_RELATIVE)


@pytest.mark.parametrize("name", ["small", "inverse_layer"])
def test_segments_and_positions_agree_with_the_oracle(name):
    config, params = seeded(name)
    tokens = golden(name)["tokens"]
    segments = np.array([[1] * 4 + [2] * 5 + [0] * 2, [1] * 11])
    positions = np.array([[*range(4), *range(5), 0, 1], [*range(7, 18)]])
    checkpoint = weights.from_state_dict(random_model.torch_names(params), config)
    streams, logits = engine(checkpoint, tokens, segments=segments, positions=positions)
    expected, expected_logits = exact(
        params, config, tokens, segments=segments, positions=positions
    )
    assert_close(streams, expected, np.abs(expected).max(), RELATIVE)
    assert_close(logits, expected_logits, np.abs(expected_logits).max(), RELATIVE)


def test_packed_segments_give_what_each_document_gives_alone():
    config, params = seeded("small")
    tokens = golden("small")["tokens"]
    segments = np.array([[1] * 4 + [2] * 7, [1] * 11])
    positions = np.array([[*range(4), *range(7)], [*range(11)]])
    checkpoint = weights.from_state_dict(random_model.torch_names(params), config)
    packed, _ = engine(checkpoint, tokens, segments=segments, positions=positions)
    # A line each; what follows a document changes nothing of it.
    lines = np.stack([tokens[0], np.roll(tokens[0], -4)])
    alone, _ = engine(checkpoint, lines)
    for line, part in enumerate((slice(0, 4), slice(4, 11))):
        expected = alone[:, line, : part.stop - part.start]
        assert_close(packed[:, 0, part], expected, np.abs(expected).max(), RELATIVE)


@pytest.mark.parametrize("bias", [False, True])
def test_head_bias_is_added_to_the_logits(bias):
    config, params = seeded("small")
    state = random_model.torch_names(params)
    if bias:
        state["lm_head.bias"] = np.linspace(-3, 3, 97, dtype=np.float32)
    checkpoint = weights.from_state_dict(state, config)
    tokens = golden("small")["tokens"]
    _, logits = engine(checkpoint, tokens)
    _, expected = exact(checkpoint.params, config, tokens)
    assert_close(logits, expected, np.abs(expected).max(), RELATIVE)
    assert ("lm_head" in checkpoint.params) == bias


@pytest.mark.parametrize("folder", ["flaxlm", "flaxshard"])
def test_flax_fixture_gives_the_residuals_and_logits_of_flax(flax, folder):
    checkpoint = weights.load(flax / folder)
    with np.load(flax / "ref.npz") as reference:
        tokens, logits, hidden = (reference[key] for key in ("ids", "logits", "hs"))
    found, found_logits = engine(checkpoint, tokens)
    # The reference's last hidden state is after ln_f; its logits cover that layer.
    assert_close(found[:-1], hidden[:-1], np.abs(hidden[:-1]).max(), RELATIVE)
    assert_close(found_logits, logits, np.abs(logits).max(), RELATIVE)


def test_flax_fixture_without_prefix_loads_and_agrees_with_the_oracle(flax):
    checkpoint = weights.load(flax / "flaxbase")
    assert checkpoint.architecture == weights.load(flax / "flaxlm").architecture
    tokens = np.arange(10)[None]
    config = {"n_layer": 2, "n_head": 3, "layer_norm_epsilon": 1e-5}
    expected, _ = exact(checkpoint.params, config, tokens)
    assert_close(engine(checkpoint, tokens)[0], expected, np.abs(expected).max(), RELATIVE)


def test_sharded_and_whole_fixture_hold_the_same_weights(flax):
    found = {weights.digest(weights.load(flax / name).params) for name in ("flaxlm", "flaxshard")}
    assert len(found) == 1
