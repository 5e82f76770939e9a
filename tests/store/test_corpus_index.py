import os

import numpy as np
import pytest
from store import example

from jaxlens import errors
from jaxlens.files import publish
from jaxlens.store import corpus_index, layout, reader
from jaxlens.store.hdf5 import images

SHARDS, ROWS = 3, 24
TOTAL = SHARDS * ROWS


@pytest.fixture
def out(tmp_path):
    """A run with a complete token index."""
    example.write_run(tmp_path, SHARDS, ROWS)
    example.publish_index(tmp_path, example.index_arrays(SHARDS, ROWS), TOTAL)
    return tmp_path


def arrays(**changes):
    return example.index_arrays(SHARDS, ROWS) | changes


def test_documents_counts_strings_and_tokens_are_those_that_were_written(out):
    written = arrays()
    with reader.open_run(out) as run:
        found = run.corpus
        assert found is run.corpus
        np.testing.assert_array_equal(found.documents.start, written["document_start"])
        np.testing.assert_array_equal(found.documents.hash, written["document_hash"])
        assert found.documents.hash.dtype == np.uint64
        assert found.documents.id.tolist() == list(example.DOCUMENTS)
        assert len(found.documents) == 4
        np.testing.assert_array_equal(found.token_counts, written["token_counts"])
        np.testing.assert_array_equal(found.token_strings, example.token_strings())
        ids = example.tokens(SHARDS, ROWS)
        np.testing.assert_array_equal(found.tokens(), ids.astype(np.int32), strict=True)
        np.testing.assert_array_equal(found.tokens(7, -3), ids[7:-3])
        assert found.tokens(9, 3).shape == (0,)


def test_every_row_has_the_document_that_it_lies_in(out):
    with reader.open_run(out) as run:
        documents = run.corpus.documents
        expected = [
            next(i for i in range(4) if documents.start[i] <= row < documents.start[i + 1])
            for row in range(TOTAL)
        ]
        np.testing.assert_array_equal(documents.of(np.arange(TOTAL)), expected)


def test_a_real_sweep_has_an_index_that_fits_its_rows(swept):
    with reader.open_run(swept) as run:
        np.testing.assert_array_equal(run.corpus.tokens(), run["token"][:])
        rows = np.arange(run.n_rows)
        np.testing.assert_array_equal(run.corpus.documents.of(rows), run["document"][:])
        offset = rows - run.corpus.documents.start[run["document"][:]]
        np.testing.assert_array_equal(offset, run["offset"][:])
        counted = np.bincount(run["token"][:], minlength=len(run.corpus.token_strings))
        np.testing.assert_array_equal(run.corpus.token_counts.sum(axis=0), counted)


@pytest.mark.parametrize("name", [layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD])
def test_a_file_that_is_gone_is_missing(out, name):
    layout.token_path(out, name).unlink()
    with reader.open_run(out) as run, pytest.raises(errors.MissingError, match=name):
        _ = run.corpus


@pytest.mark.parametrize("name", [layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD])
def test_a_file_of_which_a_bit_is_flipped_is_refused_by_name(out, name):
    path = layout.token_path(out, name)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match=name):
        run.corpus.tokens()


def test_tokens_that_are_cut_after_they_were_checked_are_refused(out):
    with reader.open_run(out) as run:
        run.corpus.tokens(0, 1)
        os.truncate(layout.token_path(out), 10)
        with pytest.raises(errors.DataError, match=r"tokens\.bin.*too early"):
            run.corpus.tokens()


V = example.VOCAB_SIZE


@pytest.mark.parametrize(
    "changes",
    [
        {"document_start": np.array([0, 5, 5, 36, TOTAL])},
        {"document_start": np.array([1, 5, 24, 36, TOTAL])},
        {"document_start": np.array([0, 5, 24, 36, TOTAL + 1])},
        {"document_start": np.array([0, 5, TOTAL])},
        {"document_start": np.array([[0, 5, 24, 36, TOTAL]])},
        {"document_start": np.array([0.0, 5.0, 24.0, 36.0, TOTAL])},
        {"document_id": np.array([b"a", b"b"])},
        {"document_hash": np.array([b"a", b"b", b"c", b"d"])},
        {"token_strings": np.array([b"a"] * (V - 1))},
        {"token_counts": np.zeros((2, V), np.int64)},
        {"token_counts": np.full((2, V), 2**62, np.int64)},
        {"token_counts": np.zeros((3, V), np.int64)},
        {"token_counts": np.zeros(V, np.int64)},
    ],
)
def test_an_index_that_makes_no_sense_is_refused_though_its_hash_fits(out, changes):
    example.publish_index(out, arrays(**changes), TOTAL)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match=r"index\.h5"):
        _ = run.corpus


@pytest.mark.parametrize("lacking", corpus_index._FIELDS)
def test_an_index_that_lacks_a_field_is_refused(out, lacking):
    left = {name: data for name, data in arrays().items() if name != lacking}
    example.publish_index(out, left, TOTAL)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match=lacking):
        _ = run.corpus


@pytest.mark.parametrize(
    ("documents", "changes"),
    [
        (None, {}),
        (0, {}),
        (TOTAL + 1, {}),
        (True, {}),
        ("4", {}),
        (2**60, {"n_tokens": 2**61}),
        (4, {"n_tokens": TOTAL - 1}),
        (4, {"dtype": "uint32"}),
        (4, {"sha256": "0" * 64}),
    ],
)
def test_a_record_that_does_not_fit_the_run_is_refused(out, documents, changes):
    changes = {"n_tokens": TOTAL} | changes
    example.publish_index(out, arrays(), changes.pop("n_tokens"), documents, **changes)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match="TOKENS"):
        _ = run.corpus


def test_an_index_of_another_spec_is_refused(tmp_path):
    stated = {"sha256": "1" * 64}
    example.write_run(tmp_path, SHARDS, ROWS, more={"corpus": stated})
    example.publish_index(tmp_path, arrays(), TOTAL)
    with reader.open_run(tmp_path) as run, pytest.raises(errors.DataError, match=r"RUN\.json"):
        _ = run.corpus


def test_an_index_that_claims_more_than_its_documents_explain_is_refused(out):
    bomb = np.zeros(1 << 24, np.int64)  # 128 MiB that deflate to little
    made = bytes(images.arrays_image(arrays(bomb=bomb), {}))
    publish.publish(layout.token_path(out, layout.TOKEN_INDEX), made, example.FAST)
    example.publish_index(out, arrays(bomb=bomb), TOTAL)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match="claims"):
        _ = run.corpus
