import hashlib
import os
import threading

import pytest

from jaxlens.files import contained, hash_memo


@pytest.fixture
def memo(tmp_path, monkeypatch):
    monkeypatch.setattr(hash_memo, "LARGE_BYTES", 10)
    monkeypatch.setattr(hash_memo, "SETTLED_SECONDS", 0.0)
    (tmp_path / "memo").mkdir(mode=0o700)
    hash_memo.enable(tmp_path / "memo")
    yield tmp_path / "memo"
    hash_memo.enable(None)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read whole."""
    names, lock, sha256 = [], threading.Lock(), contained.sha256

    def counted(path, descriptor, size=None):
        with lock:
            names.append(path.name)
        return sha256(path, descriptor, size)

    monkeypatch.setattr(contained, "sha256", counted)
    return names


def digest(path):
    with contained.opened(path) as descriptor:
        return hash_memo.sha256(path, descriptor)


def test_a_large_file_is_read_once_and_again_when_it_changes(tmp_path, memo, reads):
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"a" * 100)
    assert {digest(path) for _ in range(3)} == {hashlib.sha256(b"a" * 100).hexdigest()}
    assert reads == ["tokens.bin"]
    status = path.stat()
    path.write_bytes(b"b" * 100)  # same size, and even the same time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(path) == hashlib.sha256(b"b" * 100).hexdigest() and len(reads) == 2


def test_small_files_and_files_that_have_just_changed_are_read_each_time(
    tmp_path, memo, reads, monkeypatch
):
    small, fresh = tmp_path / "small", tmp_path / "fresh"
    small.write_bytes(b"a" * 9)
    fresh.write_bytes(b"a" * 100)
    monkeypatch.setattr(hash_memo, "SETTLED_SECONDS", 60.0)
    for path in (small, fresh, small, fresh):
        assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reads == ["small", "fresh", "small", "fresh"]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"version": 1, "sha256": "x"}', b"\xff"])
def test_a_damaged_memo_is_not_believed(tmp_path, memo, reads, raw):
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"a" * 100)
    right = digest(path)
    (stored,) = memo.glob("hash-*.json")
    version = stored.read_bytes()
    stored.write_bytes(raw)
    assert digest(path) == right and len(reads) == 2
    assert stored.read_bytes() == version


def test_of_many_at_once_one_reads(tmp_path, memo, reads):
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"a" * 1_000_000)
    found = []
    threads = [threading.Thread(target=lambda: found.append(digest(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(b"a" * 1_000_000).hexdigest()] * 8 and len(reads) == 1


def test_without_a_folder_nothing_is_remembered(tmp_path, memo, reads):
    hash_memo.enable(None)
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"a" * 100)
    assert digest(path) == digest(path) and len(reads) == 2 and not list(memo.iterdir())


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, memo, reads):
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"a" * 100)
    hash_memo.enable(tmp_path / "absent")
    assert digest(path) == digest(path) and len(reads) == 2
