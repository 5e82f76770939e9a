"""The public functions on arrays, with the packaged model."""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from sweeps import PACKAGED

import jaxlens
from jaxlens import errors, types
from jaxlens.api import array_checks, checks
from jaxlens.models import gpt2, loading
from jaxlens.models.checkpoints import checkpoint as weights

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
    return jaxlens.read_lens(model, wider, masked(wider, tokens), follow=[[5, 700]])


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
LISTED = {"layers": ["h.5"], "top_k": 5, "quantities": ["norm"]}


def test_core_is_the_default_and_lists_add_to_it(model, tokens):
    core = set(jaxlens.read_lens(model, tokens, decoder="plain").present())
    assert core == {
        "rank_input", "rank_next", "rank_final", "logp_input",
        "kl_final", "kl_input", "entropy", "top_id", "top_logp",
    }  # fmt: skip
    assert set(jaxlens.read_lens(model, tokens, **LISTED).present()) == core | {"norm"}


def test_whole_distributions_agree_with_the_readout(model, tokens):
    log_p = np.asarray(jaxlens.log_probs(model, tokens, layer=6))
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-5)
    readout = jaxlens.read_lens(model, tokens, **LISTED)
    best = np.sort(log_p, -1)[..., ::-1][..., :5]
    np.testing.assert_allclose(readout.top_logp[0], best, **TOLERANCE)
    np.testing.assert_allclose(readout.top_p[0], np.exp(best), atol=1e-5)
    named = jaxlens.log_probs(model, tokens, layer="h.5")
    np.testing.assert_array_equal(named, log_p)


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
    readout = jaxlens.read_lens(model, wider, wider >= 0, follow=[[5, 700]])
    np.testing.assert_array_equal(readout.entropy, padded.entropy)


@pytest.mark.long
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


@pytest.mark.long
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


def test_one_answer_a_prompt_is_a_column_and_what_could_be_either_is_refused(model, tokens):
    with pytest.raises(errors.ConfigError, match="one for each, or all for all") as refusal:
        jaxlens.read_lens(model, tokens, follow=[5, 700])
    assert "[batch, 1]" in refusal.value.hint and "[1, m]" in refusal.value.hint
    whole = jaxlens.read_lens(model, tokens, follow=[[5, 700]])
    each = jaxlens.read_lens(model, tokens, follow=[[5, -1], [700, 5]])
    np.testing.assert_array_equal(each.rank_follow[:, 0, :, 0], whole.rank_follow[:, 0, :, 0])
    np.testing.assert_array_equal(each.rank_follow[:, 1], whole.rank_follow[:, 1][..., ::-1])
    assert not each.rank_follow[:, 0, :, 1].any() and np.isnan(each.logp_follow[:, 0, :, 1]).all()
    column = each.labels.references.follow
    assert column.shape == (*tokens.shape, 2) and (column[0, :, 0] == 5).all()


@pytest.mark.parametrize(
    ("follow", "why"),
    [
        ([[5], [6], [7]], "follow has shape"),
        (np.zeros((2, 3, 1), int), "follow has shape"),
        ([4096], "token ids from"),
        ([-2], "token ids from"),
        ([[1], [2, 3]], "follow is a list"),
        ("people", "follow is a str"),
        ([0.5], "follow is a list"),
        ([], "follow is a list"),
    ],
)
def test_followed_tokens_that_do_not_fit_are_refused(model, tokens, follow, why):
    with pytest.raises(errors.ConfigError, match=why):
        jaxlens.read_lens(model, tokens, follow=follow)


def test_residuals_that_are_normalised_already_are_refused(model, tokens):
    streams = np.array(jaxlens.residuals(model, tokens))
    unembed = gpt2.unembed(model.params, model.config)
    norm = {name: np.asarray(model.params["ln_f"][name]) for name in ("scale", "bias")}
    last = oracle.layer_norm(streams[-1].astype(np.float64), norm, 1e-5)
    for dtype in (np.float32, np.float16, "bfloat16"):
        twice = np.concatenate([streams[:-1], jnp.asarray(last, dtype).astype(np.float32)[None]])
        with pytest.raises(errors.ConfigError, match="normalised already") as refusal:
            jaxlens.read_residuals(twice, unembed, tokens)
        assert "hidden_states" in refusal.value.hint and "hook" in refusal.value.hint
    told = jaxlens.read_residuals(twice, unembed, tokens, check=False)
    assert told.entropy.shape == streams.shape[:3]
    # A single prompt, whose padding is anything, is seen through too.
    one = np.array(twice[:, :1])
    mask = np.arange(tokens.shape[1])[None] < 5
    one[:, :, 5:] = 1e3
    with pytest.raises(errors.ConfigError, match="normalised already"):
        jaxlens.read_residuals(one, unembed, tokens[:1], mask)


def test_residuals_of_fresh_and_of_trained_models_are_not_taken_for_normalised(model, tokens):
    real = np.ones(tokens.shape, bool)
    for params in (model.params, gpt2.init(model.config, 0)):
        head = gpt2.unembed(params, model.config)
        streams = np.asarray(gpt2.residuals(params, model.config, jnp.asarray(tokens)))
        plain = dataclasses.replace(head, scale=np.ones(128), bias=np.zeros(128))
        for stream in [*streams, np.zeros_like(streams[0]), 40 * streams[-1]]:
            for unembed in (head, plain):
                array_checks.not_normalised(stream, real, unembed)
                array_checks.not_normalised(stream[:1, :1], real[:1, :1], unembed)
    random = np.random.default_rng(0)
    for scale in (0.3, 1.0, 3.0):  # nearly normal, but nobody has normalised them
        array_checks.not_normalised(
            scale * random.standard_normal((2, 16, 128)), real[:, :16], plain
        )


@pytest.mark.long
def test_a_stack_of_another_depth_is_refused_where_the_depth_is_known(model, tokens):
    streams = np.asarray(jaxlens.residuals(model, tokens))
    unembed = gpt2.unembed(model.params, model.config)
    for stack in (streams[1:], np.concatenate([streams, streams[-1:]])):
        with pytest.raises(errors.ConfigError, match="for a model of 8 blocks"):
            jaxlens.read_residuals(stack, unembed, tokens)
    bare = dataclasses.replace(unembed, n_layer=None)
    assert jaxlens.read_residuals(streams[1:], bare, tokens).entropy.shape[0] == 8


def test_layers_are_numbers_or_names(model, tokens):
    some = jaxlens.read_lens(model, tokens, layers=["h.7", "input", -2, 3])
    assert some.labels.layers == (8, 0, 7, 3)
    assert jaxlens.read_lens(model, tokens, layers=[8, 0, 7, 3]).labels.layers == (8, 0, 7, 3)
    assert checks.layers("h.0", 9) == (1,) and checks.layers(-1, 9) == (8,)
    assert checks.layers(np.array([1, 2]), 9) == (1, 2) and checks.layers(range(2), 9) == (0, 1)
    for bad in ("h.8", "h8", 9, -10, 1.5, True, None):
        with pytest.raises(errors.ConfigError, match="layer"):
            checks.layer(bad, 9)


# What people give by mistake, to every public function that takes it.
STREAMS = np.zeros((9, 1, 3, 128), np.float32)
MISTAKES = {
    "a text": (lambda m: jaxlens.read_lens(m, "a b"), "tokens are a text"),
    "texts": (lambda m: jaxlens.read_lens(m, ["a b", "c"]), "tokens are texts"),
    "ragged": (lambda m: jaxlens.read_lens(m, [[1, 2], [3]]), "unequal length, 1 to 2"),
    "ragged residuals": (lambda m: jaxlens.residuals(m, [[1, 2], [3]]), "unequal length"),
    "nothing": (lambda m: jaxlens.read_lens(m, None), "tokens are"),
    "floats": (lambda m: jaxlens.read_lens(m, [[1.0, 2.0]]), "tokens are float64"),
    "booleans": (lambda m: jaxlens.read_lens(m, [[True, False]]), "tokens are bool"),
    "one prompt": (lambda m: jaxlens.log_probs(m, [1, 2], 0), "tokens are int64 of shape"),
    "no prompts": (lambda m: jaxlens.read_lens(m, []), "tokens are|no tokens"),
    "empty prompts": (lambda m: jaxlens.read_lens(m, [[], []]), "tokens are|no tokens"),
    "negative": (lambda m: jaxlens.residuals(m, [[-1]]), "token ids from -1"),
    "beyond": (lambda m: jaxlens.log_probs(m, [[4096]], 0), "token ids from 4096"),
    "a dict": (lambda m: jaxlens.read_lens(m, {"input_ids": [[1]]}), "tokens are"),
    "mask of another shape": (
        lambda m: jaxlens.read_lens(m, [[1, 2]], [[True]]), "mask has shape"
    ),
    "ragged mask": (lambda m: jaxlens.read_lens(m, [[1], [2]], [[True], []]), "mask is a list"),
    "mask of texts": (lambda m: jaxlens.read_lens(m, [[1]], [["x"]]), "mask is a list"),
    "mask of lengths": (lambda m: jaxlens.read_lens(m, [[1, 2]], [[2, 2]]), "mask is a list"),
    "a layer's name": (lambda m: jaxlens.log_probs(m, [[1]], "h.9"), "no layer 'h.9'"),
    "no layer": (lambda m: jaxlens.log_probs(m, [[1]], None), "layer None"),
    "layers of floats": (lambda m: jaxlens.read_lens(m, [[1]], layers=[0.5]), "layer 0.5"),
    "layers of nothing": (lambda m: jaxlens.read_lens(m, [[1]], layers=0.5), "layers are"),
    "a path for a model": (lambda m: jaxlens.read_lens("gpt2", [[1]]), "model is a str"),
    "weights for a model": (lambda m: jaxlens.residuals(m.params, [[1]]), "model is a dict"),
    "nothing for a model": (lambda m: jaxlens.log_probs(None, [[1]], 0), "model is None"),
    "a path for prompts": (lambda m: jaxlens.read_prompts("gpt2", ["a"]), "model is a str"),
    "a model for an unembedding": (
        lambda m: jaxlens.read_residuals(STREAMS, m, [[1, 2, 3]]), "unembed is a Model"
    ),
    "no array": (
        lambda m: jaxlens.read_residuals("x", gpt2.unembed(m.params, m.config), [[1]]),
        "residuals are a str",
    ),
    "ragged streams": (
        lambda m: jaxlens.read_residuals(
            [STREAMS[0], STREAMS[0, :, :2]], gpt2.unembed(m.params, m.config), [[1, 2, 3]]
        ),
        "residuals are a list",
    ),
    "top_k of a text": (lambda m: jaxlens.read_lens(m, [[1]], top_k="5"), "top_k is 5"),
    "top_k of a float": (lambda m: jaxlens.read_lens(m, [[1]], top_k=2.5), "top_k is 2.5"),
    "quantities of numbers": (lambda m: jaxlens.read_lens(m, [[1]], quantities=[5]), "quantit"),
    "a number of quantities": (lambda m: jaxlens.read_lens(m, [[1]], quantities=5), "quantit"),
    "no decoder": (lambda m: jaxlens.read_lens(m, [[1]], decoder=None), "decoder is None"),
    "decoders": (lambda m: jaxlens.read_lens(m, [[1]], decoder=["plain"]), "decoder"),
    "no lens": (
        lambda m: jaxlens.read_lens(m, [[1]], implementation=None), "implementation is None"
    ),
    "precisions": (lambda m: jaxlens.residuals(m, [[1]], precision=["x"]), "precision"),
    "a seed of text": (
        lambda m: jaxlens.read_residuals(
            STREAMS, gpt2.unembed(m.params, m.config), [[1, 2, 3]], seed="x"
        ),
        "seed is 'x'",
    ),
    "a number for a model's place": (lambda m: jaxlens.load_model(5), "source is an int"),
    "nothing for a model's place": (lambda m: jaxlens.load_model(None), "source is None"),
    "dtypes": (lambda m: jaxlens.load_model("packaged", ["float32"]), "dtype is"),
    "a number for a run": (lambda m: jaxlens.open_run(5), "path is 5"),
    "a dict for a sweep": (lambda m: jaxlens.run_sweep({"out": "x"}), "configuration is a dict"),
    "one run to merge": (lambda m: jaxlens.merge_runs("out", ["a"]), "at least two"),
    "one checkpoint": (lambda m: jaxlens.study_checkpoints(["a"]), "1 run: a series"),
    "numbers of checkpoints": (lambda m: jaxlens.study_checkpoints([5, 6]), "run_dirs is"),
    "a number to merge": (lambda m: jaxlens.merge_runs("out", [5, 6]), "runs is"),
    "no workers": (
        lambda m: jaxlens.RayEngine(workers=0).run(jaxlens.config.load([]), None, None),
        "workers is 0",
    ),
    "a path for a sweep": (lambda m: jaxlens.run_sweep("x.yaml"), "configuration is a str"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_and_never_a_bare_error(model, mistake):
    call, why = MISTAKES[mistake]
    with pytest.raises(errors.ConfigError, match=why) as refusal:
        call(model)
    assert refusal.value.hint and len(refusal.value.message) < 200


def test_the_mistakes_are_made_with_every_public_function():
    source = inspect.getsource(inspect.getmodule(masked))
    for name in set(jaxlens.__all__) - {"__version__", "Model", "PromptTable"}:
        assert f"lambda m: jaxlens.{name}(" in source, name


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
    checkpoint = loading.load_checkpoint("packaged")
    model = loading.from_checkpoint(checkpoint)
    for mine, stored in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(checkpoint.params), strict=True
    ):
        assert mine.unsafe_buffer_pointer() == stored.ctypes.data
