"""Readouts as data frames: the numbers are those of the arrays, and what is missing is missing."""

import dataclasses
import sys

import jax
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view.hostile import TOKENS
from view.labelled import COUNT, readout_of

import jaxlens
from jaxlens import errors


def numbers(column):
    """A column as floats, NaN where it is missing."""
    return column.to_numpy(np.float64, na_value=np.nan)


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, COUNT), min_size=1, max_size=3).filter(any),
    st.integers(1, 4),
    st.sampled_from([(), (3,), (8, 0)]),
    st.integers(0, 9),
)
def test_every_number_of_the_arrays_is_in_its_record_and_no_other(lengths, depth, follow, seed):
    readout = readout_of(tuple(lengths), depth, seed, follow)
    frame = readout.to_pandas()
    assert len(frame) == depth * sum(lengths)
    where = (frame["layer"], frame["batch"], frame["position"])
    expected = [(i, b, p) for i in range(depth) for b, n in enumerate(lengths) for p in range(n)]
    assert list(zip(*where, strict=True)) == expected
    for name, values in readout.present().items():
        several = values.ndim == 4 and values.shape[3] > 1
        for place in range(values.shape[3] if values.ndim == 4 else 1):
            column = numbers(frame[f"{name}.{place + 1}" if several else name])
            found = values[where] if values.ndim == 3 else values[(*where, place)]
            missing = np.isnan(found) if found.dtype.kind == "f" else found <= 0
            if name == "top_id":
                missing = found < 0
            np.testing.assert_array_equal(np.isnan(column), missing)
            np.testing.assert_array_equal(column[~missing], found[~missing])


def test_columns_are_named_as_those_of_exports_and_typed():
    frame = readout_of().to_pandas()
    first = ["layer", "layer_name", "batch", "position", "token_id", "token"]
    assert list(frame.columns[:6]) == first
    assert [c for c in frame if c.startswith("top_")] == [
        f"{name}.{k}" for name in ("top_id", "top_token", "top_logp") for k in (1, 2, 3)
    ]
    for name, column in frame.items():
        stem = name.partition(".")[0]
        if stem in ("layer", "batch", "position"):
            assert column.dtype == np.int64
        elif stem.startswith("rank_") or stem.endswith("_id"):
            assert column.dtype == "Int32", name
        else:
            text = stem.endswith("token") or stem == "layer_name"
            assert column.dtype == ("string" if text else np.float32), name
    assert list(readout_of(follow=(3,)).to_pandas().columns[-4:]) == [
        *("follow_id", "follow_token", "rank_follow", "logp_follow")
    ]


def test_tokens_are_spelled_whatever_they_hold():
    frame = readout_of().to_pandas()
    for kind in ("token", "top_token.2", "follow_token.1"):
        ids = frame[kind.replace("token", "id") if "_" in kind else "token_id"]
        for number, text in zip(ids, frame[kind], strict=True):
            raw = TOKENS[number]
            assert text is pandas.NA if not raw else text == raw.decode("utf-8", "backslashreplace")
    silent = readout_of(spell=False).to_pandas()
    assert silent["token"].isna().all() and silent["token"].dtype == "string"


def test_followed_tokens_that_change_along_a_line_are_named_at_each_position():
    readout = readout_of(follow=(0, 8))
    changing = np.arange(COUNT)[None, :, None] % 4 + np.array([0, 1])
    references = dataclasses.replace(readout.labels.references, follow=changing)
    labels = dataclasses.replace(readout.labels, references=references)
    frame = readout.replace(labels=labels).to_pandas()
    np.testing.assert_array_equal(frame["follow_id.2"], frame["position"] % 4 + 1)


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


def test_a_tie_of_no_token_is_missing_and_no_tie_is_0(model):
    readout = jaxlens.read_lens(
        model,
        [[5, 6, 5, 7], [5, 5, 5, 5]],
        quantities=["ties_next", "ties_copy", "ties_final"],
        implementation="reference",
        layers=[8],
    )
    frame = readout.to_pandas().query("batch == 0")
    assert frame["ties_next"].isna().tolist() == [False, False, False, True]
    assert frame["ties_copy"].isna().tolist() == [True, True, False, True]
    assert not frame["ties_final"].isna().any()


def test_a_model_s_readout_with_padding_best_and_followed_tokens_goes_there_and_back(model):
    tokens = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = np.array([[True] * 4, [True] * 2 + [False] * 2])
    readout = jaxlens.read_lens(
        model, tokens, mask, top_k=3, follow=[700], quantities=["top_logp", "kl_final_matched"]
    )
    frame = readout.to_pandas()
    for name, values in readout.present().items():
        count = values.shape[3] if values.ndim == 4 else 1
        columns = [f"{name}.{k + 1}" for k in range(count)] if count > 1 else [name]
        found = np.stack([numbers(frame[c]) for c in columns], -1).reshape(9, 6, count)
        theirs = np.asarray(values, np.float64)[:, mask].reshape(9, 6, count)
        known = theirs > 0 if name.startswith("rank_") else ~np.isnan(theirs)
        np.testing.assert_array_equal(found[known], theirs[known])
        assert np.isnan(found[~known]).all()
    assert frame["rank_next"].isna().sum() == 9 * 2
    assert (frame["follow_token"] == model.tokenizer.decode([700])).all()


def test_what_is_no_longer_whole_stays_as_it_is():
    half = jax.tree.map(lambda x: x / 2, readout_of())
    frame = half.to_pandas()
    np.testing.assert_array_equal(frame["rank_input"], half.rank_input.ravel())


def test_without_pandas_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.MissingError, match="need the package pandas") as refusal:
        readout_of().to_pandas()
    assert "pip install '.[view]'" in refusal.value.hint
