import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from jaxlens import errors
from jaxlens.corpus.readers import documents, json_lines, skip_log

MEBIBYTE = 2**20


def texts(path, **options):
    return [d.text for d in documents.read([path], **options)]


def one(path):
    (document,) = documents.read([path])
    return document


MALFORMED = {
    "not json": (b'{"text": ', skip_log.BAD_JSON),
    "single quotes": (b"{'text': 'a'}", skip_log.BAD_JSON),
    "integer of too many digits": (b'{"n": ' + b"9" * 5000 + b', "text": "a"}', skip_log.BAD_JSON),
    "array": (b'["text"]', skip_log.NOT_AN_OBJECT),
    "string": (b'"text"', skip_log.NOT_AN_OBJECT),
    "missing field": (b'{"content": "a"}', skip_log.NO_TEXT),
    "null field": (b'{"text": null}', skip_log.NO_TEXT),
    "number field": (b'{"text": 3}', skip_log.NOT_A_STRING),
    "nan field": (b'{"text": NaN}', skip_log.NOT_A_STRING),
    "field twice": (b'{"text": "a", "text": "b"}', skip_log.DUPLICATE_KEY),
    "field twice, null": (b'{"text": "a", "b": 1, "text": null}', skip_log.DUPLICATE_KEY),
    "field twice, escaped": (rb'{"text": "a", "t\u0065xt": "b"}', skip_log.DUPLICATE_KEY),
    "id twice": (b'{"id": 1, "id": 1, "text": "a"}', skip_log.DUPLICATE_KEY),
    "invalid utf-8": (b'{"text": "\xff\xfe"}', skip_log.INVALID_UTF8),
    "encoded surrogate": (b'{"text": "\xed\xa0\x80"}', skip_log.INVALID_UTF8),
    "lone surrogate": (rb'{"text": "a\ud800"}', skip_log.LONE_SURROGATE),
    "deep brackets": (b"[" * 100_000, skip_log.TOO_DEEP),
    "deep brackets in a field": (b'{"a":' + b"[" * 100_000, skip_log.TOO_DEEP),
    "empty line": (b"", skip_log.EMPTY),
    "blank line": (b" \t ", skip_log.EMPTY),
    "empty text": (b'{"text": ""}', skip_log.EMPTY),
    "blank text": (b'{"text": " \\n\\u00a0\\t"}', skip_log.EMPTY),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_is_counted_with_file_and_line(case, write_lines):
    line, reason = MALFORMED[case]
    path = write_lines({"text": "before"}, line, {"text": "after"})
    skips = skip_log.SkipLog()
    assert texts(path, skips=skips) == ["before", "after"]
    assert skips.counts == {reason: 1}
    assert skips.entries == [("corpus.jsonl:2", reason)]
    assert (skips.documents, skips.skipped) == (2, 1)


@pytest.mark.parametrize("case", MALFORMED)
def test_strict_stops_at_a_malformed_line_and_names_it(case, write_lines):
    line, reason = MALFORMED[case]
    reader = documents.read([write_lines({"text": "before"}, line)], strict=True)
    assert next(reader).text == "before"
    with pytest.raises(errors.DataError, match=r"corpus\.jsonl:2") as caught:
        next(reader)
    assert reason in caught.value.message
    assert caught.value.exit_code == 65


ACCEPTED = {
    "nan elsewhere": (b'{"score": NaN, "text": "a"}', "a"),
    "infinity elsewhere": (b'{"score": -Infinity, "text": "a"}', "a"),
    "escaped nul": (rb'{"text": "a\u0000b"}', "a\0b"),
    "raw nul": (b'{"text": "a\0b"}', "a\0b"),
    "raw tab": (b'{"text": "a\tb"}', "a\tb"),
    "other keys twice": (b'{"n": 1, "n": 2, "text": "a"}', "a"),
    "the field twice, below": (b'{"a": {"text": 1, "text": 2}, "text": "a"}', "a"),
    "the field in a value": (b'{"a": "text", "b": ["id", "id"], "text": "a"}', "a"),
    "byte-order mark": (b'\xef\xbb\xbf{"text": "a"}', "a"),
    "crlf": (b'{"text": "a"}\r', "a"),
    "paired surrogates": (rb'{"text": "\ud83d\ude00"}', "\U0001f600"),
    "line separator inside": ('{"text": "a\u2028b"}'.encode(), "a\u2028b"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_odd_but_valid_line_is_read(case, write_lines):
    line, text = ACCEPTED[case]
    assert texts(write_lines(line), strict=True) == [text]


def test_last_line_needs_no_line_end(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}')
    assert texts(path, strict=True) == ["a", "b"]


def test_id_is_the_field_or_file_and_line(write_lines):
    path = write_lines(
        {"text": "a", "id": "own"},
        {"text": "b", "id": 7},
        {"text": "c"},
        {"text": "d", "id": True},
        {"text": "e", "id": ""},
        {"text": "f", "id": ["x"]},
    )
    ids = [d.id for d in documents.read([path])]
    assert ids == ["own", "7", *(f"corpus.jsonl:{n}" for n in (3, 4, 5, 6))]


def test_fields_can_be_named(write_lines):
    path = write_lines({"body": "a", "key": "k", "text": "no", "id": "no"})
    (document,) = documents.read([path], text_field="body", id_field="key")
    assert (document.id, document.text, str(document.location)) == ("k", "a", "corpus.jsonl:1")


def test_text_file_is_one_document_named_after_itself(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\0\n")
    place = skip_log.Location(0, 0, "book.txt")
    assert one(path) == documents.Document("book.txt", "one\ntwo\rthree\0\n", place)
    assert one(tmp_path).id == "sub/book.txt"


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        (b"", ("a.txt", skip_log.EMPTY)),
        (b" \n\t", ("a.txt", skip_log.EMPTY)),
        (b"\xef\xbb\xbf", ("a.txt", skip_log.EMPTY)),
        (b"fine\nfine\n\xff\n", ("a.txt:3", skip_log.INVALID_UTF8)),
        ("utf-16".encode("utf-16"), ("a.txt:1", skip_log.INVALID_UTF8)),
    ],
)
def test_unusable_text_file_is_counted(tmp_path, data, entry):
    (tmp_path / "a.txt").write_bytes(data)
    skips = skip_log.SkipLog()
    assert texts(tmp_path, skips=skips) == []
    assert skips.entries == [entry]


def test_too_long_line_is_skipped_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", 100)
    exact = b'{"text": "' + b"x" * 88 + b'"}'
    assert len(exact) == 100
    path = tmp_path / "a.jsonl"
    long = b'{"text": "' + b"y" * 20_000 + b'"}'
    path.write_bytes(b"\n".join([exact, long, b'{"text": "z"}', long]))
    skips = skip_log.SkipLog()
    assert texts(path, skips=skips) == ["x" * 88, "z"]
    assert skips.entries == [("a.jsonl:2", skip_log.TOO_LONG), ("a.jsonl:4", skip_log.TOO_LONG)]


CROWDS = {
    "brackets": (b"[],", b"]}"),
    "commas": (b"1,", b"1]}"),
    "objects": (b'{"a":1},', b"1]}"),
    "strings": (rb'"a\",[",', b"1]}"),
    "brackets after a string with escapes": (rb'"\\\\", [],', b"1]}"),
    "brackets, unterminated": (b"[],", b'"'),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_line_of_too_many_values_is_skipped(write_lines, monkeypatch, crowd):
    monkeypatch.setattr(json_lines, "MAX_VALUES", 1000)
    piece, end = CROWDS[crowd]
    path = write_lines(b'{"text": "a", "n": [' + piece * 1001 + end)
    skips = skip_log.SkipLog()
    assert texts(path, skips=skips) == []
    assert skips.entries == [("corpus.jsonl:1", skip_log.TOO_MANY_VALUES)]


def test_marks_inside_strings_are_no_values(write_lines, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_VALUES", 1000)
    text = '[1, {"a": "b\\"}], ' * 1000
    path = write_lines({"n": [0] * 900, "text": text})
    assert texts(path, strict=True) == [text]


def test_too_long_text_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", 100)
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100)
    assert len(one(path).text) == 100
    path.write_bytes(b"x" * 101)
    with pytest.raises(errors.DataError, match=r"a\.txt"):
        one(path)


def test_a_line_beyond_the_bound_is_never_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", MEBIBYTE)
    path = tmp_path / "a.jsonl"
    with path.open("wb") as stream:
        for _ in range(64):
            stream.write(b"x" * MEBIBYTE)
    tracemalloc.start()
    skips = skip_log.SkipLog()
    assert texts(path, skips=skips) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert skips.counts == {skip_log.TOO_LONG: 1}
    assert peak < 6 * MEBIBYTE  # the bound, its copy and the buffers


def test_a_million_blank_lines_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n" * 1_000_000)
    skips = skip_log.SkipLog()
    assert texts(path, skips=skips) == []
    assert skips.counts == {skip_log.EMPTY: 1_000_000}
    assert skips.entries == [("a.jsonl:1-1000000", skip_log.EMPTY)]


def test_memory_does_not_grow_with_the_number_of_blank_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n" * 200_000)  # fewer, since tracing is slow; held, they would be 10 MB
    tracemalloc.start()
    assert texts(path) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MEBIBYTE  # the file's buffer and the log


def test_a_line_of_100_megabytes_is_one_document(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"text": "')
        for _ in range(100):
            stream.write(b"a b\\n" * 200_000)
        stream.write(b'"}\n')
    assert len(one(path).text) == 80_000_000


def test_packaged_text_is_one_document_a_topic():
    read = list(documents.read(["packaged"], strict=True))
    assert len(read) > 50
    assert [d.id for d in read] == sorted(d.id for d in read)
    assert all(d.id.startswith("pydoc:") for d in read)
    assert documents.expand(["packaged"]) == []


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    (root / "b").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "b" / "c.jsonl").write_text(json.dumps({"text": "two"}))
    return root


def test_fingerprint_stays_when_the_folder_moves(folder, tmp_path):
    before = documents.fingerprint([folder], {"limit": None})
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert documents.fingerprint([str(moved)], {"limit": None}) == before
    old = os.getcwd()
    os.chdir(moved)
    try:
        assert documents.fingerprint(["."], {"limit": None}) == before
    finally:
        os.chdir(old)


def test_fingerprint_changes_with_bytes_names_and_options(folder):
    def take(**options):
        return documents.fingerprint([folder], options)

    seen = [take(), take(limit=3), documents.fingerprint(["packaged"], {})]
    (folder / "a.txt").rename(folder / "z.txt")
    seen.append(take())
    (folder / "z.txt").write_text("onf")
    seen.append(take())
    (folder / "new.txt").write_text("")
    seen.append(take())
    assert len(set(seen)) == len(seen)


def test_fingerprint_ignores_the_order_of_options(folder):
    first = documents.fingerprint([folder], {"a": 1, "b": [2, None]})
    assert first == documents.fingerprint([folder], {"b": [2, None], "a": 1})


def test_no_absolute_path_in_any_document(folder):
    for document in documents.read([folder, folder / "a.txt", f"{folder}/*/*.jsonl"]):
        assert "/corpus" not in document.id + str(document.location)
        assert not Path(document.id).is_absolute()


def test_system_refusal_is_a_storage_error(tmp_path):
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("needs a file that opens but does not read (/proc/self/mem)")
    (tmp_path / "a.txt").symlink_to(memory)
    with pytest.raises(errors.StorageError, match=r"a\.txt") as caught:
        texts(tmp_path)
    assert caught.value.exit_code == 74
    with pytest.raises(errors.StorageError):
        documents.fingerprint([tmp_path], {})


def test_a_file_that_vanished_is_missing(write_lines):
    first, second = write_lines({"text": "a"}, name="a.jsonl"), write_lines(name="b.jsonl")
    reader = documents.read([first, second])
    next(reader)
    second.unlink()
    with pytest.raises(errors.MissingError, match=r"b\.jsonl"):
        next(reader)
