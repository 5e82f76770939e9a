import bz2
import gzip
import json
import os
import tracemalloc

import pytest
import zstandard

from jaxlens import errors
from jaxlens.corpus.readers import documents, json_lines, skip_log
from jaxlens.files import compression


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}
LINES = "".join(json.dumps({"text": f"text {n} {'é' * n}"}) + "\n" for n in range(80)).encode()
MEBIBYTE = 2**20


def texts(path):
    return [d.text for d in documents.read([path], strict=True)]


@pytest.fixture(params=PACK)
def suffix(request):
    return request.param


def test_packed_files_read_as_the_plain_ones(tmp_path, suffix):
    for name in ("a.jsonl", "a.txt", "a.ndjson"):
        plain, packed = tmp_path / name, tmp_path / (name + suffix)
        plain.write_bytes(LINES)
        packed.write_bytes(PACK[suffix](LINES))
        assert texts(packed) == texts(plain)


def test_streams_that_follow_each_other_are_all_read(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    parts = [LINES[i : i + 37] for i in range(0, len(LINES), 37)]
    path.write_bytes(b"".join(PACK[suffix](part) for part in [*parts, b""]))
    assert len(texts(path)) == 80


def test_zeros_behind_an_archive_are_padding(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](LINES) + b"\0" * 5000)
    assert len(texts(path)) == 80


def test_truncated_anywhere_is_an_error_that_names_the_file(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    whole = PACK[suffix](LINES)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(errors.DataError, match=r"a\.jsonl") as caught:
            texts(path)
        assert caught.value.exit_code == 65


def test_any_flipped_bit_is_an_error_or_harmless(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    whole = PACK[suffix](LINES) + PACK[suffix](LINES)
    for bit in range(0, 8 * len(whole), 23):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = texts(path)
        except errors.DataError:
            continue
        assert read == [(LINES + LINES).decode()]


def test_garbage_behind_an_archive_is_an_error(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](LINES) + b"garbage")
    with pytest.raises(errors.DataError):
        texts(path)


def test_skippable_frames_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    frame = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    path.write_bytes(frame + zstd(LINES) + frame)
    assert len(texts(path)) == 80


def test_bomb_is_never_held(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", MEBIBYTE)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](bytes(64 * MEBIBYTE)) * 2)
    skips = skip_log.SkipLog()
    tracemalloc.start()
    assert list(documents.read([path], skips=skips)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert skips.counts == {skip_log.TOO_LONG: 1}
    assert peak < 80 * MEBIBYTE  # a piece of input holds 32 MiB at most, twice while it is copied


def test_bytes_come_through_in_any_portions(tmp_path, suffix):
    data = os.urandom(5 * MEBIBYTE)
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(PACK[suffix](data))
    with compression.opened(str(path)) as stream:
        read = b"".join(iter(lambda: stream.read(65_537), b""))
    assert read == data


def test_missing_package_names_the_extra_to_install():
    with pytest.raises(errors.MissingError) as caught:
        errors.require_package("no_such_package.anywhere", "data", "corpora")
    assert caught.value.message.startswith("corpora need the package no_such_package,")
    assert caught.value.hint == "in a clone of jaxlens: pip install '.[data]'"
    assert caught.value.exit_code == 66
