"""The pre-pass that fits a temperature to each layer, and what a run does with them."""

import dataclasses
import itertools
import json

import numpy as np
import oracle
import pytest
from sweeps import configure, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.corpus import token_file
from jaxlens.lens import implementations, temperature
from jaxlens.models import gpt2
from jaxlens.sweep import estimate, temperatures
from jaxlens.sweep import run as sweep

FITTED = {"lens.temperatures": None}
QUIET = {"store.rows": "none", **FITTED}


def spec(out):
    return json.loads((out / "RUN.json").read_bytes())


def index_of(sizes, hashes):
    starts = np.concatenate([[0], np.cumsum(sizes)])
    names = np.array([b"x"] * len(sizes))
    counts = np.zeros((2, 5), np.int64)
    counts[0, 0] = starts[-1]
    return token_file.Index(starts, np.array(hashes, np.uint64), names, counts)


def test_the_sample_is_a_hundredth_of_the_text_by_hash_whatever_the_order():
    random = np.random.default_rng(0)
    sizes, hashes = random.integers(50, 400, 5_000), random.permutation(5_000)
    index = index_of(sizes, hashes)
    chosen = temperatures.sample(index, 256)
    taken = np.minimum(sizes[chosen], 256).sum()
    assert temperatures.SHARE * index.n_tokens <= taken < temperatures.SHARE * index.n_tokens + 256
    order = random.permutation(5_000)
    again = temperatures.sample(index_of(sizes[order], hashes[order]), 256)
    assert set(hashes[order][again]) == set(hashes[chosen])


def test_small_texts_are_fitted_to_whole_and_large_ones_to_a_bounded_part():
    few = index_of(np.full(5, 100), range(5))
    assert len(temperatures.sample(few, 256)) == 5
    many = index_of(np.full(40_000, 1_000), range(40_000))
    assert len(temperatures.sample(many, 1_000)) == -(-temperatures.MAX_TOKENS // 1_000)
    assert (
        len(temperatures.sample(index_of(np.full(100, 64), range(100)), 64))
        == temperatures.MIN_TOKENS // 64
    )


@pytest.mark.long
def test_short_documents_are_not_padded_to_a_whole_context(tiny, tmp_path, monkeypatch):
    index = index_of([3, 20, 7, 300], range(4))
    assert temperatures._width(index, np.array([0, 1, 2]), 256) == 32
    assert temperatures._width(index, np.array([0]), 256) == 4
    assert temperatures._width(index, np.array([1, 3]), 256) == 256
    assert temperatures._width(index, np.array([1, 3]), 24) == 24
    lines = [json.dumps({"text": f"a short text, number {i}"}) for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    for name in ("narrow", "wide"):
        if name == "wide":
            monkeypatch.setattr(temperatures, "_width", lambda index, documents, length: length)
        sweep.run(configure(tiny, tmp_path / "texts.jsonl", tmp_path / name, **QUIET))
    found = [spec(tmp_path / name)["lens"]["temperatures"] for name in ("narrow", "wide")]
    # Sums in another order; temperatures are kept to four digits.
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_a_run_fits_the_temperatures_that_minimise_its_own_divergence(tiny, texts, tmp_path):
    sweep.run(configure(tiny, texts, tmp_path / "run", **FITTED))
    found = spec(tmp_path / "run")["lens"]["temperatures"]
    assert len(found) == 3 and found[-1] == 1.0
    with jaxlens.open_run(tmp_path / "run") as run:
        matched, raw = run["kl_final_matched"][:], run["kl_final"][:]
        tokens, starts = run.corpus.tokens(), run.corpus.documents.start
    assert (matched[:, -1] == 0).all()
    assert (matched.mean(0)[:-1] < raw.mean(0)[:-1]).all()
    # The sample is the whole text here; each of its documents up to the length of a context.
    model = jaxlens.load_model(tiny)
    losses = {factor: np.zeros(2) for factor in (0.97, 1.0, 1.03)}
    for start, stop in itertools.pairwise(starts):
        ids = tokens[start : min(stop, start + 32)][None]
        streams = oracle.residuals(model.params, model.config, ids)
        z = oracle.logits(streams, gpt2.unembed(model.params, model.config))
        last = oracle.log_softmax(z[-1:])
        for factor, total in losses.items():
            tau = factor * np.array(found[:-1])[:, None, None, None]
            total += oracle.kl(last, oracle.log_softmax(z[:-1] / tau)).sum((1, 2))
    assert (losses[1.0] <= losses[0.97]).all() and (losses[1.0] <= losses[1.03]).all()


def test_a_run_that_has_begun_keeps_its_temperatures(tiny, texts, tmp_path, monkeypatch):
    half = configure(tiny, texts, tmp_path / "run", **QUIET, shard="0/2")
    sweep.run(half)

    def refit(*_):
        raise AssertionError("they stand in the spec")

    monkeypatch.setattr(temperatures, "fit_temperatures", refit)
    assert sweep.run(dataclasses.replace(half, shard=None)).finished


def test_temperatures_that_are_given_are_taken(tiny, texts, tmp_path):
    given = {"lens.temperatures": [2.5, 0.5, 1]}
    sweep.run(configure(tiny, texts, tmp_path / "run", **(QUIET | given)))
    assert spec(tmp_path / "run")["lens"]["temperatures"] == [2.5, 0.5, 1.0]


@pytest.mark.parametrize("given", [[1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 2.0], [1, -1, 1]])
def test_temperatures_that_make_no_sense_are_refused(tiny, texts, tmp_path, given):
    with pytest.raises(errors.ConfigError, match="temperatures"):
        sweep.run(configure(tiny, texts, tmp_path / "run", **{"lens.temperatures": given}))


def test_temperatures_that_are_no_numbers_are_refused(tiny, texts, tmp_path):
    with pytest.raises(errors.ConfigError, match="temperatures") as refusal:
        configure(tiny, texts, tmp_path / "run", **{"lens.temperatures": ["warm"]})
    assert refusal.value.hint == "expected a list of numbers"


@pytest.mark.parametrize(
    "implementation",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name != "tiled"))
        for name in implementations.IMPLEMENTATIONS
    ],
)
def test_a_prompt_is_matched_by_temperatures_of_its_own_or_by_given_ones(implementation):
    model = jaxlens.load_model("packaged")
    ids = np.array([model.tokenizer.encode("Sometimes, when people say plasma, they mean").ids])
    readout = jaxlens.read_lens(model, ids, quantities="full")
    matched, raw = np.asarray(readout.kl_final_matched), np.asarray(readout.kl_final)
    assert (matched.mean((1, 2))[:-1] < raw.mean((1, 2))[:-1]).all()
    streams = jaxlens.residuals(model, ids)
    tau = np.linspace(3.0, 1.0, len(streams)).astype(np.float32)
    unembed = dataclasses.replace(gpt2.unembed(model.params, model.config), temperature=tau)
    found = jaxlens.read_residuals(
        streams, unembed, ids, quantities="full", implementation=implementation
    )
    z = oracle.logits(np.asarray(streams), unembed)
    tempered = oracle.log_softmax(z / tau[:, None, None, None])
    expected = oracle.kl(oracle.log_softmax(z[-1:]), tempered)
    # Rounding of float32 logits of some tens, through sums of 4,096 terms.
    np.testing.assert_allclose(found.kl_final_matched, expected, atol=2e-4, rtol=2e-4)


def test_a_dry_run_says_what_would_be_fitted_and_fits_nothing(tiny, texts, tmp_path, monkeypatch):
    def refused(*_):
        raise AssertionError("a step costs the same at any temperature")

    monkeypatch.setattr(temperatures, "fit_temperatures", refused)
    named = estimate.estimate(configure(tiny, texts, tmp_path / "run", **FITTED))
    assert named.out == str(tmp_path / "run")
    # As many whole beginnings, of a context at most, as the least sample needs.
    least = temperatures.MIN_TOKENS
    assert least <= named.fitted_tokens < least + 32
    assert named.fitted_tokens / 32 <= named.fitted_documents <= named.documents
    unnamed = estimate.estimate(configure(tiny, texts, None, **FITTED))
    assert unnamed.out is None and unnamed.fitted_tokens == named.fitted_tokens
    given = estimate.estimate(configure(tiny, texts, None))
    assert given.out is not None and given.fitted_tokens == given.fitted_documents == 0


def test_a_dry_run_beside_a_run_that_has_begun_compares_all_of_it(tiny, texts, tmp_path):
    sweep.run(configure(tiny, texts, tmp_path / "run", **QUIET))
    assert estimate.estimate(configure(tiny, texts, tmp_path / "run", **QUIET)).fitted_tokens == 0
    other = QUIET | {"lens.decoder": "plain"}
    with pytest.raises(errors.ConfigError, match="decoder"):
        estimate.estimate(configure(tiny, texts, tmp_path / "run", **other))


def test_a_prompt_is_shown_without_fitting(monkeypatch, capsys):
    def refused(*_):
        raise AssertionError("nothing that is shown is matched")

    monkeypatch.setattr(temperature, "of_batch", refused)
    assert run_cli("show", "Other times, when people say plasma") == 0
    assert "best token at each layer" in capsys.readouterr().out
