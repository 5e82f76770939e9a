"""Mangled inputs for each reader of text, settings and token files: a thousand, or ten (long).

Each is read or refused with one line; never a traceback, a signal, a hang or 50 MiB.
"""

import bz2
import gzip
import io
import itertools
import json
import tarfile

import fuzzing
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard
from fuzz import read_text

from jaxlens import config, errors

RECORDS = [
    {"id": f"d{n}", "text": text, "meta": {"text": n, "tags": ["a", None, 1.5e3, True]}}
    for n, text in enumerate(["The old town.", "naïve 日本語 \U0001f600", "a\tb\n\\c\0", "x" * 300])
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
RAW_LINES = "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in RECORDS).encode()
LONG = b'{"text": "' + b"a" * 200_000 + b'"}'
JSON_WORDS = [
    *(b"\xef\xbb\xbf", b"\0", b"\n", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000"),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"null"),
    *(b'"text": ', b'"text": "", ', b'"text": NaN, ', b'"id": 1, ', b"\xe2\x80\xa8", b'"', b"{}"),
]


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def table(columns, **options):
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream, **options)
    return stream.getvalue()


def json_lines():
    return [LINES, b"\xef\xbb\xbf" + RAW_LINES, b'{"text":"a"}'], JSON_WORDS


def plain():
    texts = [b"Line one.\r\nLine two.\n", "日本語 naïve \U0001f600\n".encode() * 9, b"x"]
    return texts, [b"\xef\xbb\xbf", b"\0", b"\r\n", b"\xff\xfe", b"\xed\xa0\x80", b" \n", b"\xc0"]


def packed():
    packers = (gzip.compress, bz2.compress, zstd)
    one = [bytes([kind]) + pack(LINES) for kind, pack in enumerate(packers)]
    two = [raw + pack(RAW_LINES) + b"\0" * 9 for raw, pack in zip(one, packers, strict=True)]
    bomb = [bytes([kind]) + pack(LONG) for kind, pack in enumerate(packers)]
    frames = [b"\x1f\x8b\x08", b"BZh9", b"1AY&SY", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"]
    return [*one, *two, *bomb], frames


def parquet():
    texts = [record["text"] for record in RECORDS] * 5
    idents = list(range(20))
    columns = {"text": texts, "id": idents, "n": [[1.5, None]] * 20}
    seeds = [
        table(columns),
        table(columns, compression="none", use_dictionary=False, row_group_size=7),
        table(columns, compression="zstd", data_page_version="2.0", write_page_checksum=True),
        table({"text": pyarrow.array(texts).dictionary_encode()}, compression="gzip"),
        table({"text": texts}, compression="none", column_encoding="DELTA_BYTE_ARRAY",
              use_dictionary=False),
    ]  # fmt: skip
    return seeds, [b"PAR1", b"text", b"ARROW:schema", b"\xff" * 10, b"\x80" * 9 + b"\x01"]


def kinds():
    rows = pyarrow.table({"text": [r["text"] for r in RECORDS], "id": [1, 2, 3, 4]})
    arrow = io.BytesIO()
    with pyarrow.ipc.new_stream(arrow, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=3)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for number, record in enumerate(RECORDS):
            data = record["text"].encode()
            info = tarfile.TarInfo(f"{'n' * 60 * number}{number}.txt")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    table = b'text,id\nfine,1\n"a, ""b""\nc",2\n'
    seeds = [
        *(b"\0" + json.dumps(RECORDS).encode(), b"\0" + json.dumps(RECORDS[1], indent=1).encode()),
        *(b"\0" + LINES, b"\1" + table, b"\2" + table.replace(b",", b"\t")),
        *(b"\3" + tar.getvalue(), b"\4" + arrow.getvalue()),
    ]
    words = [b'"', b'""', b",", b";", b"\t", b"\r\n", b"\0" * 512, b"ustar\x0000", b"././@LongLink"]
    return seeds, [*words, *JSON_WORDS, b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"77777777777"]


def settings():
    seeds = [
        b"model: {path: gpt2, dtype: float32}\ncorpus:\n  paths: [a.txt, 'b*.jsonl']\n"
        b"  limit: 10M\n  strict: false\nplan: {length: 128, overlap: 4}\nseed: 3\n",
        b"# note\nlens:\n  decoder: plain\n  tile: 1_024\nstore:\n  rows: core\nout: ~\n",
        b'lens: &a {top_k: 5}\nstore: {quantities: [norm], "rows": "full"}\nshard: 0/4\n',
    ]
    words = [
        *(b"!!int ", b"!!float ", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!null ", b"!!set "),
        *(b"!!omap ", b"!!pairs ", b"!!map ", b"!!seq ", b"!!str ", b"!!python/name:os.system "),
        *(
            b"&a ",
            b"*a",
            b"<<: *a\n",
            b"<<: ",
            b"? ",
            b"- ",
            b"[[",
            b"{",
            b"\t",
            b"---\n",
            b"...\n",
        ),
        *(
            b"2001-99-99",
            b"0x_",
            b"0b",
            b"1:99",
            b".inf",
            b".nan",
            b"1e999",
            b"9" * 5000,
            b"[" * 999,
        ),
        *(b"%YAML 9.9\n", b"\xef\xbb\xbf", b'"\\ud800"', b'"\\0"', b"a\n\nb: ", b"'a\n\n b': 1\n"),
    ]
    return seeds, words


def token_file():
    claims = [
        b'"n_tokens":',
        b'"skipped":',
        b'"skipped_at":',
        b"{}",
        b"[]",
        b"-1",
        b"1e999",
        b"NaN",
    ]
    lengths = [(2**power).to_bytes(8, "little") for power in (31, 32, 45, 62, 63)]
    return read_text.token_seeds(), [*claims, *lengths, b"\xff" * 8, b"TREE", b"OHDR", b"FRHP"]


READERS = (json_lines, plain, packed, parquet, kinds, settings, token_file)


@pytest.mark.parametrize("count", fuzzing.COUNTS)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_mangled_input_is_read_or_refused(reader, count, tmp_path):
    seeds, words = reader()
    target = f"fuzz.read_text:{reader.__name__}"
    found = fuzzing.fuzz(target, seeds, count, tmp_path / "seeds", words=words)
    print(reader.__name__, found)
    assert found["read"] > 0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "seed: !!int ''",
            "corpus: {strict: !!bool maybe}",
            "seed: !!timestamp x",
            "!!float x: 1",
        ),
        *(
            "seed: !!float ''",
            "seed: 2001-01-01 99:00:00",
            "'a\n\n b': 1",
            '"\\ud800": 1',
            "? [a]\n: 1",
        ),
    ],
)
def test_yaml_of_wrong_values_is_refused_with_one_line(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load([path])
    assert caught.value.message.isprintable()
    with pytest.raises(errors.ConfigError):
        config.load([], {}, {"seed": config.parse("seed", text)})


def test_a_value_that_anchors_blow_up_is_shown_in_short(tmp_path):
    levels = [
        f"{a}: &{a} [{', '.join(9 * ['*' + b])}]"
        for a, b in itertools.pairwise("abcdefghijkl"[::-1])
    ]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(["l: &l [x]", *levels, "seed: *a"]))
    with pytest.raises(errors.ConfigError) as caught:
        config.load([path])
    assert len(caught.value.message) < 1000
    path.write_text("seed: " + "[" * 11 + "x" + "]" * 11)
    with pytest.raises(errors.ConfigError, match="seed is"):
        config.load([path])
