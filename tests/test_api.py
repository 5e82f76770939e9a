"""The public functions on arrays, with the packaged model."""

import json

import jax
import numpy as np
import oracle
import pytest
from sweeps import PACKAGED

import jaxlens
from jaxlens import api, errors, types
from jaxlens.models import gpt2, weights

PROMPT = "Other times, when people say plasma, they mean a part of blood"
# Float32 through eight blocks and a vocabulary of 4,096, logits of order 10.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-4}


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


@pytest.fixture(scope="module")
def tokens(model):
    ids = model.tokenizer.encode(PROMPT).ids
    return np.array([ids, ids[::-1]], np.int32)


@pytest.fixture(scope="module")
def full(model, tokens):
    """A readout of everything."""
    return jaxlens.read_lens(model, tokens, quantities="full")


@pytest.fixture(scope="module")
def padded(model, tokens):
    """A readout of the same with padding, and with two followed tokens."""
    wider = np.pad(tokens, ((0, 0), (0, 6)))
    return jaxlens.read_lens(model, wider, masked(wider, tokens), follow=[5, 700])


def masked(wider, tokens):
    return np.broadcast_to(np.arange(wider.shape[1]) < tokens.shape[1], wider.shape)


def test_the_packaged_model_reads_as_the_oracle_does(model, tokens, full):
    params = weights.load(PACKAGED).params
    streams = oracle.residuals(params, model.config, tokens)
    np.testing.assert_allclose(jaxlens.residuals(model, tokens), streams, rtol=1e-4, atol=1e-3)
    unembed = gpt2.unembed(params, model.config)
    absent = np.full(tokens.shape, -1)
    mask = np.ones(tokens.shape, bool)
    expected = oracle.lens(streams, unembed, types.References(tokens, absent, absent, absent, mask))
    for name in ("kl_final", "kl_input", "entropy", "logp_input", "logp_final"):
        np.testing.assert_allclose(getattr(full, name), expected[name], **TOLERANCE)
    flips = np.asarray(full.rank_input) != expected["rank_input"]
    assert flips.mean() < 0.02


def test_it_is_a_language_model(model, tokens):
    """A trained model predicts English far better than chance, ln 4096 = 8.3 nats."""
    ids = model.tokenizer.encode("The people of the city were in the street, and it was a day").ids
    assert len(ids) == tokens.shape[1]  # so that nothing is compiled again
    readout = jaxlens.read_lens(model, [ids, ids], quantities="full")
    surprisal = -np.asarray(readout.logp_next)[-1, 0, :-1]
    assert surprisal.mean() < 5


# Layers, best tokens and quantities that one program reads for two tests.
LISTED = {"layers": [6], "top_k": 5, "quantities": ["top_logp", "norm"]}


def test_core_is_the_default_and_lists_add_to_it(model, tokens):
    core = set(jaxlens.read_lens(model, tokens, decoder="plain").present())
    assert core == {
        "rank_input", "rank_next", "rank_final", "logp_input",
        "kl_final", "kl_input", "entropy", "top_id",
    }  # fmt: skip
    assert set(jaxlens.read_lens(model, tokens, **LISTED).present()) == core | {"top_logp", "norm"}


def test_whole_distributions_agree_with_the_readout(model, tokens):
    log_p = np.asarray(jaxlens.log_probs(model, tokens, layer=6))
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-5)
    readout = jaxlens.read_lens(model, tokens, **LISTED)
    best = np.sort(log_p, -1)[..., ::-1][..., :5]
    np.testing.assert_allclose(readout.top_logp[0], best, **TOLERANCE)


def test_followed_tokens_are_read_at_every_layer(model, tokens, padded):
    assert padded.rank_follow.shape == (9, *padded.rank_input.shape[1:], 2)
    log_p = np.asarray(jaxlens.log_probs(model, tokens, 3))
    found = padded.logp_follow[3][:, : tokens.shape[1]]
    np.testing.assert_allclose(found, log_p[..., [5, 700]], **TOLERANCE)


def test_padding_on_the_right_changes_nothing_and_is_masked(model, tokens, full, padded):
    length = tokens.shape[1]
    for name in ("kl_final", "entropy"):
        values = getattr(padded, name)
        np.testing.assert_allclose(values[:, :, :length], getattr(full, name), **TOLERANCE)
        assert np.isnan(values[:, :, length:]).all()
    wider = np.pad(tokens, ((0, 0), (0, 6)))
    with pytest.raises(errors.ConfigError, match="padding"):
        jaxlens.read_lens(model, wider, masked(wider, tokens)[:, ::-1])


def test_masked_padding_may_hold_anything(model, tokens, padded):
    wider = np.pad(tokens, ((0, 0), (0, 6)), constant_values=-1)
    readout = jaxlens.read_lens(model, wider, wider >= 0, follow=[5, 700])
    np.testing.assert_array_equal(readout.entropy, padded.entropy)


def test_64_bit_mode_changes_nothing(model, tokens, full):
    with jax.enable_x64(True):
        wide = jaxlens.read_lens(model, tokens, quantities="full")
        reference = jaxlens.read_lens(model, tokens, implementation="reference")
    for name, value in full.present().items():
        np.testing.assert_array_equal(getattr(wide, name), value)
        assert getattr(wide, name).dtype == value.dtype
    assert reference.entropy.dtype == np.float32


def test_residuals_from_elsewhere_are_read_alike(model, tokens):
    streams = np.asarray(jaxlens.residuals(model, tokens))
    unembed = gpt2.unembed(model.params, model.config, "plain")
    one = jaxlens.read_residuals(streams, unembed, tokens)
    two = jaxlens.read_lens(model, tokens, decoder="plain")
    np.testing.assert_array_equal(one.entropy, two.entropy)
    with pytest.raises(errors.ConfigError, match="residuals have shape"):
        jaxlens.read_residuals(streams[0], unembed, tokens)
    with pytest.raises(errors.ConfigError, match="vocabulary"):
        jaxlens.read_residuals(streams, unembed, tokens + 4096)


def test_a_state_dict_is_a_model_too(model, tokens):
    config = json.loads((PACKAGED / "config.json").read_text())
    with pytest.raises(errors.ConfigError):
        jaxlens.load_model({"wte": np.zeros(3)})
    nested = jax.tree.map(np.asarray, model.params)
    state = dict(weights_by_name(nested, config["n_layer"]))
    again = jaxlens.load_model(state, config=config)
    np.testing.assert_array_equal(
        jaxlens.residuals(again, tokens), jaxlens.residuals(model, tokens)
    )
    assert again.tokenizer is None


def weights_by_name(params, layers):
    """PyTorch's names of stacked parameters."""
    yield "transformer.wte.weight", params["wte"]
    yield "transformer.wpe.weight", params["wpe"]
    names = {"scale": "weight", "bias": "bias", "kernel": "weight"}
    for leaf, value in params["ln_f"].items():
        yield f"transformer.ln_f.{names[leaf]}", value
    flat = {
        f"{group}.{part}.{leaf}": value
        for group in ("attn", "mlp")
        for part, leaves in params["h"][group].items()
        for leaf, value in leaves.items()
    }
    flat |= {f"{n}.{leaf}": v for n in ("ln_1", "ln_2") for leaf, v in params["h"][n].items()}
    for name, value in flat.items():
        stem, _, leaf = name.rpartition(".")
        for layer in range(layers):
            yield f"transformer.h.{layer}.{stem}.{names[leaf]}", value[layer]


def test_bfloat16_weights_give_about_the_same_readout(tokens, full):
    narrow = jaxlens.load_model("packaged", dtype="bfloat16")
    readout = jaxlens.read_lens(narrow, tokens)
    # 8 bits of every weight, through eight blocks: a few hundredths of a nat on average.
    assert np.abs(np.asarray(full.entropy) - np.asarray(readout.entropy)).mean() < 0.1


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 2, 3], "tokens are"),
        ([[0.5]], "tokens are"),
        ([[4096]], "vocabulary"),
        ([[-1]], "vocabulary"),
        ([[0] * 257], "positions"),
        (np.zeros((0, 3), int), "no tokens"),
        (np.zeros((3, 0), int), "no tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(model, tokens, message):
    with pytest.raises(errors.ConfigError, match=message):
        jaxlens.read_lens(model, tokens)


@pytest.mark.parametrize(
    "how",
    [
        {"decoder": "tuned"},
        {"layers": [9]},
        {"layers": []},
        {"top_k": 0},
        {"precision": "tf32"},
        {"follow": [5000]},
        {"quantities": ["nothing"]},
        {"implementation": "mosaic"},
    ],
)
def test_options_that_do_not_fit_are_refused(model, tokens, how):
    with pytest.raises(errors.ConfigError):
        jaxlens.read_lens(model, tokens, **how)


def test_weights_of_a_file_are_not_copied_on_a_cpu():
    """Alignment is what JAX asks for; without it a model would take twice its memory."""
    checkpoint = api.load_checkpoint("packaged")
    model = api.from_checkpoint(checkpoint)
    for mine, stored in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(checkpoint.params), strict=True
    ):
        assert mine.unsafe_buffer_pointer() == stored.ctypes.data
