"""Text that nobody cleaned: read as it is, or counted with its place, or refused with one line.

Each case goes the whole way, through the real command line.
"""

import bz2
import gzip
import json
import os

import pytest
import zstandard
from sweeps import flags, run_cli

from jaxlens.corpus.readers import documents, json_lines, skip_log

FINE = b'{"id": "fine", "text": "It rains in the old town."}\n'
MARK = b"\xef\xbb\xbf"
MEBIBYTE = 2**20


def between(line):
    """JSON lines of which the second is odd."""
    return FINE + line + b"\n" + FINE


SKIPPED = {
    "bad UTF-8": ("a.jsonl", between(b'{"text": "\xff"}'), "a.jsonl:2: invalid UTF-8"),
    "bad UTF-8 in a .txt": ("a.txt", b"one\ntwo\n\xc3(\n", "a.txt:3: invalid UTF-8"),
    "UTF-16": ("a.txt", "It rains.".encode("utf-16"), "a.txt:1: invalid UTF-8"),
    "surrogate": ("a.jsonl", between(rb'{"text": "a\udc80"}'), "a.jsonl:2: lone surrogate"),
    "mark inside": ("a.jsonl", between(MARK + FINE.strip()), "a.jsonl:2: bad JSON"),
    "NUL outside": ("a.jsonl", between(b"\0"), "a.jsonl:2: bad JSON"),
    "NaN as text": ("a.jsonl", between(b'{"text": NaN}'), "a.jsonl:2: text is not a string"),
    "key twice": ("a.jsonl", between(b'{"text": "a", "text": "b"}'), "a.jsonl:2: duplicate key"),
    "deep": ("a.jsonl", between(b"[" * 100_000), "a.jsonl:2: nested too deeply"),
    "deep, closed": (
        "a.jsonl",
        between(b'{"text": "a", "b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "a.jsonl:2: nested too deeply",
    ),
    "no field": ("a.jsonl", between(b'{"content": "a"}'), "a.jsonl:2: no text field"),
    "empty": ("a.jsonl", between(b'{"text": ""}\n\n'), "a.jsonl:2-4: empty"),
    "white space": ("a.jsonl", between(rb'{"text": " \n\u00a0\t"}'), "a.jsonl:2: empty"),
    "empty .txt": ("a.txt", b"", "a.txt: empty"),
    "blank .txt": ("a.txt", MARK + b"\r\n \n", "a.txt: empty"),
    "a million values": (
        "a.jsonl.gz",
        gzip.compress(
            between(b'{"text": "a", "b": [' + b"[]," * json_lines.MAX_VALUES + b"0]}"), 1
        ),
        "a.jsonl.gz:2: too many values",
    ),
}

READ = {
    "mark": ("a.jsonl", MARK + FINE),
    "mark in a .txt": ("a.txt", MARK + b"It rains."),
    "CRLF": ("a.jsonl", FINE.replace(b"\n", b"\r\n")),
    "CRLF in a .txt": ("a.txt", b"It rains.\r\nIt rains.\r\n"),
    "NUL": ("a.jsonl", rb'{"text": "a\u0000b"}'),
    "raw NUL": ("a.jsonl", b'{"text": "a\0b"}'),
    "NUL in a .txt": ("a.txt", b"a\0b"),
    "NaN elsewhere": ("a.jsonl", b'{"text": "a", "score": NaN, "more": [-Infinity]}'),
    "other key twice": ("a.jsonl", b'{"n": 1, "text": "a", "n": 2}'),
}


def truncated(compress):
    return compress(FINE * 100)[:-9]


REFUSED = {
    "truncated gzip": ("a.jsonl.gz", truncated(gzip.compress)),
    "truncated bzip2": ("a.jsonl.bz2", truncated(bz2.compress)),
    "truncated Zstandard": ("a.jsonl.zst", truncated(zstandard.ZstdCompressor().compress)),
    "no archive": ("a.txt.gz", b"It rains."),
    "no table": ("a.parquet", b"PAR1 It rains. PAR1"),
    "nothing but empty documents": ("a.jsonl", b'{"text": ""}\n' * 1000),
    "pipe": ("a.jsonl", None),
}


@pytest.fixture
def tokenize(tiny, tmp_path, capsys):
    """Runs ``jaxlens tokenize`` over files; exit code, record, stdout, lines of stderr."""

    def run(files):
        folder = tmp_path / "texts"
        folder.mkdir()
        for name, data in files.items():
            os.mkfifo(folder / name) if data is None else (folder / name).write_bytes(data)
        out = tmp_path / "out"
        code = run_cli("tokenize", "--model", tiny, "--corpus", folder, "--out", out)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        record = out / "tokens" / "TOKENS.json"
        found = json.loads(record.read_text()) if record.exists() else None
        return code, found, printed.out, printed.err.splitlines()

    return run


@pytest.mark.parametrize("case", SKIPPED)
def test_unusable_text_is_counted_with_file_and_line(tokenize, tmp_path, case):
    name, data, entry = SKIPPED[case]
    code, record, printed, _ = tokenize({name: data, "z.jsonl": FINE})
    where, _, reason = entry.partition(": ")
    assert code == 0
    assert record["documents"] == sound(name) + 1
    assert record["skipped_at"] == [entry]
    assert list(record["skipped"]) == [reason]
    assert f"skipped {sum(record['skipped'].values())}: {reason}" in printed
    log = skip_log.SkipLog()
    assert len(list(documents.read([tmp_path / "texts"], skips=log))) == sound(name) + 1
    assert log.entries == [(where, reason)]


def sound(name):
    """Documents of a skipped case that are sound."""
    return 0 if name.endswith(".txt") else 2


@pytest.mark.parametrize("case", READ)
def test_odd_but_sound_text_is_read(tokenize, tmp_path, case):
    name, data = READ[case]
    code, record, printed, _ = tokenize({name: data})
    assert code == 0
    assert (record["documents"], record["skipped"], record["skipped_at"]) == (1, {}, [])
    assert "skipped" not in printed


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_to_its_end_is_refused_with_one_line(tokenize, case):
    code, record, _, said = tokenize(dict([REFUSED[case]]))
    assert (code, record) == (65, None)
    assert [line.split(":")[0] for line in said if ": " in line] == ["error", "hint"]
    assert REFUSED[case][0] in said[-2] or "no tokens" in said[-2]


def test_a_sweep_over_all_of_it_records_what_is_sound(tiny, tmp_path, capsys):
    folder = tmp_path / "texts"
    cases = [case[:2] for case in (*SKIPPED.values(), *READ.values())]
    for number, (name, data) in enumerate(cases):
        (folder / f"{number:02d}").mkdir(parents=True)
        (folder / f"{number:02d}" / name).write_bytes(data)
    out = tmp_path / "out"
    code = run_cli(*flags(tiny, folder, out))
    assert code == 0, capsys.readouterr().err
    record = json.loads((out / "tokens" / "TOKENS.json").read_text())
    entries = [f"{number:02d}/{case[2]}" for number, case in enumerate(SKIPPED.values())]
    assert record["skipped_at"] == entries
    assert record["documents"] == sum(sound(case[0]) for case in SKIPPED.values()) + len(READ)
    assert run_cli("verify", out) == 0


EMPTIES = """
import sys
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus import tokenize as tokens
tokenizer = tokens.load_tokenizer(sys.argv[1])
mark()
log = skip_log.SkipLog()
texts = documents.read([sys.argv[2]], skips=log)
index = tokens.build(texts, tokenizer, lambda data: None, vocab_size=401, skips=log)
assert index.n_documents == 1
assert log.skipped == int(sys.argv[3]), log.counts
"""


@pytest.mark.parametrize("most", [200_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(False, id="one run", marks=pytest.mark.long),
        pytest.param(True, id="runs of two"),
    ],
)
def test_many_empty_documents_take_no_more_memory_than_a_tenth_of_them(
    tokenizer, tmp_path, memory_growth, broken, most
):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    grown = []
    for count in (most // 10, most):
        piece = b'{"text": ""}\n\n{\n{\n' if broken else b'{"text": ""}\n' * 4
        path = tmp_path / f"{count}.jsonl"
        path.write_bytes(piece * (count // 4) + FINE)
        grown.append(memory_growth(EMPTIES, tmp_path, path, count))
    assert abs(grown[1] - grown[0]) < 5  # MiB
    assert max(grown) < 25


LONG = """
import sys
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus import tokenize as tokens
tokenizer = tokens.load_tokenizer(sys.argv[1])
def build(path):
    texts = documents.read([path], strict=True)
    return tokens.build(texts, tokenizer, lambda data: None, vocab_size=401)
build(sys.argv[2])
mark()
assert build(sys.argv[3]).n_documents == 1
"""


@pytest.mark.parametrize("size", [6, pytest.param(100, marks=pytest.mark.long)], ids="{} MB".format)
@pytest.mark.parametrize("name", ["a.jsonl", pytest.param("a.txt", marks=pytest.mark.long)])
def test_a_document_of_one_line_takes_three_times_its_size(
    tokenizer, tmp_path, memory_growth, size, name
):
    """Its bytes, the line as text and the document are there at once; the tokens never."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path, length in ((tmp_path / f"small{name}", 1), (tmp_path / name, size)):
        text = b"The quick brown fox jumps over the lazy dog. " * (length * 10**6 // 45)
        path.write_bytes(b'{"text": "' + text + b'"}' if name == "a.jsonl" else text)
    grown = memory_growth(LONG, tmp_path, tmp_path / f"small{name}", tmp_path / name)
    print(size, name, grown)
    assert grown < 60 + 3 * size
