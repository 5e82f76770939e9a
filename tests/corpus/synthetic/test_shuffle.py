"""The shuffled null: each document holds its own tokens in another order, all else is equal."""

import io
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.corpus import tokenize
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import shuffle

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def shuffled(ids, starts, hashes, cuts, seed=0, fixed=0):
    """Feeds a token file in parts; the documents that began before the end of a part are known."""
    out = io.BytesIO()
    writer = shuffle.Shuffler(out.write, seed, fixed)
    bounds = [0, *sorted(cuts), len(ids)]
    for low, high in itertools.pairwise(bounds):
        known = [n for n, start in enumerate(starts[:-1]) if start < high]
        writer.take(ids[low:high].copy(), [starts[n] for n in known], [hashes[n] for n in known])
    writer.finish(starts, hashes)
    return np.frombuffer(out.getvalue(), ids.dtype)


def split(ids, starts):
    return [ids[a:b].tolist() for a, b in itertools.pairwise(starts)]


@given(LENGTHS, st.integers(0, 2), st.integers(-5, 5), st.data())
def test_documents_are_permuted_within_themselves_however_they_come(lengths, fixed, seed, data):
    starts = [0, *np.cumsum(lengths).tolist()]
    ids = np.arange(starts[-1]).astype("<u2")
    hashes = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(lengths)))
    cuts = data.draw(st.lists(st.integers(0, len(ids)), max_size=6))
    found = shuffled(ids, starts, hashes[: len(lengths)], cuts, seed, fixed)
    for before, after in zip(split(ids, starts), split(found, starts), strict=True):
        assert sorted(after) == before
        assert after[:fixed] == before[:fixed]
    whole = shuffled(ids, starts, hashes[: len(lengths)], [], seed, fixed)
    assert found.tolist() == whole.tolist()


def test_the_order_depends_on_seed_hash_and_length():
    ids = np.arange(40).astype("<u2")
    base = shuffled(ids, [0, 40], [7], []).tolist()
    assert base == shuffled(ids, [0, 40], [7], []).tolist()
    assert base != ids.tolist()
    assert base != shuffled(ids, [0, 40], [7], [], seed=1).tolist()
    assert base != shuffled(ids, [0, 40], [8], []).tolist()
    shorter = shuffled(ids[:39], [0, 39], [7], []).tolist()
    assert shorter != [n for n in base if n != 39]


TEXTS = ["The quick brown fox jumps over the lazy dog", "fox", "it's 42 degrees", "a b " * 900]


@pytest.mark.parametrize("more", [{}, {"bos_id": 0}, {"limit": 100}, {"limit": 1, "bos_id": 0}])
def test_a_shuffled_token_file_has_the_index_of_the_plain_one(tokenizer, more):
    corpus = [
        documents.Document(f"d{n}", text, skip_log.Location(0, n, "f"))
        for n, text in enumerate(TEXTS, 1)
    ]
    files = []
    for seed in (None, 3):
        out = io.BytesIO()
        made = tokenize.build(
            corpus, tokenizer, out.write, vocab_size=401, shuffle_seed=seed, **more
        )
        files.append((np.frombuffer(out.getvalue(), made.dtype), made))
    (plain, index), (mixed, other) = files
    for name, array in index.to_arrays().items():
        np.testing.assert_array_equal(array, other.to_arrays()[name], err_msg=name)
    for before, after in zip(
        split(plain, index.document_start), split(mixed, index.document_start), strict=True
    ):
        assert Counter(before) == Counter(after)
        if "bos_id" in more:
            assert after[0] == 0
    assert plain.tolist() != mixed.tolist() or len(plain) == 1
