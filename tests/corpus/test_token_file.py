import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import errors
from jaxlens.corpus import token_file


def make_index(starts, vocab_size=401):
    starts = np.asarray(starts, np.int64)
    counts = np.zeros((2, vocab_size), np.int64)
    counts[0, 0] = starts[-1]
    size = len(starts) - 1
    return token_file.Index(
        starts, np.arange(size, dtype=np.uint64), np.full(size, b"x", "S1"), counts
    )


@pytest.fixture(params=[401, 70_001], ids=["uint16", "uint32"])
def stored(request, tmp_path):
    index = make_index([0, 10, 11, 1000], request.param)
    ids = np.random.default_rng(0).integers(0, request.param, 1000).astype(index.dtype)
    path = tmp_path / "tokens.bin"
    path.write_bytes(ids.tobytes())
    return path, index, ids


def test_read_gives_any_range(stored):
    path, index, ids = stored
    with token_file.TokenFile(path, index) as file:
        for start, stop in ((0, 1000), (0, 0), (999, 1000), (10, 500), (1000, 1000)):
            np.testing.assert_array_equal(file.read(start, stop), ids[start:stop])
        for start, stop in ((-1, 3), (5, 4), (0, 1001)):
            with pytest.raises(IndexError):
                file.read(start, stop)


@pytest.mark.parametrize("resident", [0, 2**20], ids=["by pieces", "resident"])
def test_gather_gives_any_places_in_any_order(stored, monkeypatch, resident):
    monkeypatch.setattr(token_file, "RESIDENT_BYTES", resident)
    path, index, ids = stored
    places = np.random.default_rng(1).integers(0, 1000, 300)
    with token_file.TokenFile(path, index) as file:
        np.testing.assert_array_equal(file.gather(places), ids[places])
        assert file.gather(places[:0]).size == 0


def test_document_of_is_the_document_that_holds_the_token(stored):
    path, index, _ = stored
    with token_file.TokenFile(path, index) as file:
        assert file.document_of(np.array([0, 9, 10, 11, 999])).tolist() == [0, 0, 1, 2, 2]


def test_reads_that_come_short_are_completed(stored, monkeypatch):
    path, index, ids = stored
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 7), at))
    with token_file.TokenFile(path, index) as file:
        np.testing.assert_array_equal(file.read(3, 900), ids[3:900])


def test_file_truncated_while_open_is_an_error_not_a_signal(stored):
    path, index, _ = stored
    with token_file.TokenFile(path, index) as file:
        os.truncate(path, 101)
        with pytest.raises(errors.DataError, match="damaged"):
            file.read(0, 1000)
        with pytest.raises(errors.DataError, match="damaged"):
            file.gather(np.array([0, 999]))


@pytest.mark.parametrize("resident", [0, 2**20], ids=["by pieces", "resident"])
def test_a_token_that_the_vocabulary_has_not_is_refused(stored, monkeypatch, resident):
    monkeypatch.setattr(token_file, "RESIDENT_BYTES", resident)
    path, index, ids = stored
    raw = ids.copy()
    raw[500] = index.vocab_size
    path.write_bytes(raw.tobytes())
    with token_file.TokenFile(path, index) as file:
        np.testing.assert_array_equal(file.read(0, 500), ids[:500])
        for take in (lambda: file.read(490, 510), lambda: file.gather(np.array([3, 500]))):
            with pytest.raises(errors.DataError, match=r"tokens\.bin is damaged"):
                take()


def test_an_id_that_is_not_utf8_is_shown_as_far_as_it_is():
    arrays = make_index([0, 10]).to_arrays() | {"document_id": np.array([b"a\xff"])}
    assert token_file.Index.from_arrays(arrays).id_of(0) == "a\ufffd"


@pytest.mark.parametrize("change", [-1, 1, -2000])
def test_file_of_another_size_is_refused(stored, change):
    path, index, _ = stored
    os.truncate(path, max(0, path.stat().st_size + change))
    with pytest.raises(errors.DataError, match=r"tokens\.bin is damaged"):
        token_file.TokenFile(path, index)


def test_missing_file_pipe_and_link_are_refused(stored, tmp_path):
    path, index, _ = stored
    with pytest.raises(errors.MissingError):
        token_file.TokenFile(tmp_path / "absent", index)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.DataError):
        token_file.TokenFile(tmp_path / "pipe", index)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(errors.StorageError):
        token_file.TokenFile(tmp_path / "link", index)


def test_no_descriptor_stays_open(stored, tmp_path):
    path, index, _ = stored
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else None
    for _ in range(50):
        with token_file.TokenFile(path, index) as file:
            file.read(0, 1)
        file.close()
        with pytest.raises(errors.DataError):
            token_file.TokenFile(path, make_index([0, 5]))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == len(before)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_index_survives_the_way_through_plain_arrays(sizes):
    index = make_index(np.concatenate([[0], np.cumsum(sizes)]))
    arrays = index.to_arrays()
    assert all(type(a) is np.ndarray and a.dtype.kind in "iuS" for a in arrays.values())
    again = token_file.Index.from_arrays(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype
    assert (again.n_tokens, again.dtype) == (index.n_tokens, index.dtype)


DAMAGE = {
    "missing field": lambda a: a.pop("document_hash"),
    "fewer hashes": lambda a: a.update(document_hash=a["document_hash"][:-1]),
    "fewer ids": lambda a: a.update(document_id=a["document_id"][:-1]),
    "no start at 0": lambda a: a.update(document_start=a["document_start"] + 1),
    "empty document": lambda a: a.update(document_start=np.array([0, 10, 10, 1000])),
    "other counts": lambda a: a.update(token_counts=a["token_counts"] * 2),
    "counts of one fold": lambda a: a.update(token_counts=a["token_counts"][0]),
    "numbers for ids": lambda a: a.update(token_counts=np.array(["a"])),
    "floats": lambda a: a.update(document_start=a["document_start"].astype(float)),
    "texts for hashes": lambda a: a.update(document_hash=np.array([b"a", b"b", b"c"])),
    "numbers for names": lambda a: a.update(document_id=np.arange(3)),
    "a grid of hashes": lambda a: a.update(document_hash=np.zeros((3, 2), np.uint64)),
    "a lone number": lambda a: a.update(document_hash=np.uint64(3)),
    "backwards": lambda a: a.update(document_start=np.array([0, 20, 11, 1000])),
    "differences that overflow": lambda a: a.update(
        document_start=np.array([0, 2**62, -(2**62), 1000])
    ),
    "too many to be": lambda a: a.update(document_start=np.array([0, 10, 11, 2**62])),
    "beyond int64": lambda a: a.update(document_start=np.array([0, 10, 11, 2**63], np.uint64)),
    "negative counts": lambda a: a["token_counts"].__setitem__((1, slice(2)), [-7, 7]),
    "counts that overflow": lambda a: a["token_counts"].__setitem__(
        (1, slice(4)), [2**62, 2**62, 2**62, 2**62]
    ),
    "no counts": lambda a: a.update(token_counts=np.zeros((2, 0), np.int64)),
    "nothing": lambda a: a.update(document_start=np.array([], np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_index_is_refused(damage):
    arrays = make_index([0, 10, 11, 1000]).to_arrays()
    DAMAGE[damage](arrays)
    with pytest.raises(errors.DataError, match="index of the token file is damaged"):
        token_file.Index.from_arrays(arrays)
