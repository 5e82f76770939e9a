"""Every kind of file that people bring: what is read, skipped and refused."""

import bz2
import csv
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard
from sweeps import PACKAGED

from jaxlens import config, errors
from jaxlens.corpus import ingest, tokenize
from jaxlens.corpus.readers import documents, formats, json_lines, skip_log, sources

ROWS = [
    {"id": "a-1", "text": "One, two;\tthree.", "n": 1},
    {"id": "a-2", "text": 'He said "no".\nThen left.', "n": 2},
    {"id": "a-3", "text": "naïve 日本語 \U0001f600", "n": 3},
]
TEXTS = [row["text"] for row in ROWS]
IDS = [row["id"] for row in ROWS]


def read(path, **options):
    skips = skip_log.SkipLog()
    found = list(documents.read([path], skips=skips, **options))
    assert skips.documents == len(found)
    return found, skips


def texts(path, **options):
    return [d.text for d in read(path, strict=True, **options)[0]]


def delimited(delimiter):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode()


def arrow(columns, random_access=False, **options):
    table = pyarrow.table(columns)
    stream = io.BytesIO()
    make = pyarrow.ipc.new_file if random_access else pyarrow.ipc.new_stream
    with make(stream, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=2)
    return stream.getvalue()


def tar(members, mode="w", form=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return stream.getvalue()


COLUMNS = {key: [row[key] for row in ROWS] for key in ROWS[0]}
FILES = {
    "a.json": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "blank first.json": b"\n" + "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "indented.json": b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).encode(),
    "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.csv": delimited(","),
    "semicolons.csv": b"\xef\xbb\xbf" + delimited(";"),
    "a.csv.gz": gzip.compress(delimited(",")),
    "a.tsv": delimited("\t"),
    "a.tsv.zst": zstandard.ZstdCompressor().compress(delimited("\t")),
    "a.arrow": arrow(COLUMNS),
    "file.arrow": arrow(COLUMNS, random_access=True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_gives_the_same_documents(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    found, skips = read(path)
    assert [d.text for d in found] == TEXTS
    assert [d.id for d in found] == IDS
    assert skips.counts == ({skip_log.EMPTY: 1} if "blank" in name else {})


def test_places_are_records_or_lines(tmp_path):
    for name, lines_of in {
        "a.csv": [2, 3, 5],
        "array.json": [1, 2, 3],
        "a.arrow": [1, 2, 3],
    }.items():
        path = tmp_path / name
        path.write_bytes(FILES[name])
        found, _ = read(path, id_field="none")
        assert [d.id for d in found] == [f"{name}:{line}" for line in lines_of]


def test_one_object_of_many_lines_is_one_record(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"text": "whole", "more": {"a": [1, 2]}}, indent=1))
    assert texts(path) == ["whole"]
    path.write_text('{"text": "whole"}')
    assert texts(path) == ["whole"]


def test_an_empty_file_holds_no_records(tmp_path):
    path = tmp_path / "a.json"
    for data in (b"", b"\n \n", b"\xef\xbb\xbf", b"[]"):
        path.write_bytes(data)
        assert read(path)[0] == []


def test_records_of_an_array_are_skipped_one_by_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, 3, {"text": 1}, {"text": "b", "text": "c"}, {"n": 1}]')
    found, skips = read(path)
    assert [d.text for d in found] == ["a"]
    assert skips.entries == [
        ("a.json:2", skip_log.NOT_AN_OBJECT),
        ("a.json:3", skip_log.NOT_A_STRING),
        ("a.json:4", skip_log.DUPLICATE_KEY),
        ("a.json:5", skip_log.NO_TEXT),
    ]


def test_a_damaged_first_line_is_one_skip_of_a_json_of_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"text": "bro\n{"text": "a"}\n["x"]\n')
    found, skips = read(path)
    assert [d.text for d in found] == ["a"]
    assert skips.counts == {skip_log.BAD_JSON: 1, skip_log.NOT_AN_OBJECT: 1}


@pytest.mark.parametrize(
    "data", [b"[1, 2", b"{\n'text': 1}", b"[" * 9999, b"[\xff]", b"\x80", b"text"]
)
def test_what_is_no_json_is_refused_or_skipped_whole(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(errors.DataError, match=r"a\.json") as caught:
        read(path)
    assert caught.value.hint


def test_a_large_array_is_refused_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "a" * 50}] * 9))
    monkeypatch.setattr(json_lines, "LINE_BYTES", 300)
    with pytest.raises(errors.DataError, match="one JSON value") as caught:
        read(path)
    assert "jq -c" in caught.value.hint
    monkeypatch.setattr(json_lines, "LINE_BYTES", 10**6)
    monkeypatch.setattr(json_lines, "MAX_VALUES", 10)
    with pytest.raises(errors.DataError, match="one JSON value"):
        read(path)


def test_rows_that_do_not_fit_the_header_are_skipped_and_bytes_that_are_no_text_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,n\nfine,1\nnot, quoted,2\n\nshort\n"\xff",3\n,4\n"two\nlines",5\r\n')
    found, skips = read(path)
    assert [(d.id, d.text) for d in found] == [("a.csv:2", "fine"), ("a.csv:8", "two\nlines")]
    assert skips.entries == [
        ("a.csv:3", skip_log.UNEVEN),
        ("a.csv:4", skip_log.EMPTY),
        ("a.csv:5", skip_log.UNEVEN),
        ("a.csv:6", skip_log.INVALID_UTF8),
        ("a.csv:7", skip_log.EMPTY),
    ]


def test_a_field_may_be_huge_and_the_bound_of_the_process_stays(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"' + "a b\n" * 10**6 + '",1\nb,2\n')
    before = csv.field_size_limit()
    assert [len(text) for text in texts(path)] == [4 * 10**6, 1]
    assert csv.field_size_limit() == before


TABLES = {
    "a quote is never closed": (b'text,n\na,1\n"b,2\nc,3\n', "a.csv:3"),
    "no such column": (b"body,n\na,1\n", "text_field"),
    "nothing": (b"", "no column 'text'"),
    "two columns of the name": (b"text,text\na,b\n", "2 columns"),
    "UTF-16": ("text,n\na,1\n".encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, case):
    data, said = TABLES[case]
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(errors.DataError) as caught:
        read(path)
    assert said in caught.value.message + caught.value.hint


def test_rows_without_end_are_never_held(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    monkeypatch.setattr(json_lines, "LINE_BYTES", 1000)
    for row in ('"' + "a\n" * 999, ('"' + "a\n" * 300 + '",') * 9, "b" * 2000):
        path.write_text("text,n\na,1\n" + row)
        with pytest.raises(errors.DataError, match=r"a\.csv:3"):
            read(path)
    monkeypatch.setattr(json_lines, "MAX_VALUES", 20)
    path.write_text("text,n\na,1\n" + "," * 999)
    with pytest.raises(errors.DataError, match=r"a\.csv:3"):
        read(path)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_texts_in_an_archive_are_documents(tmp_path, packing, caplog):
    members = {
        "a.txt": b"one\r\n",
        "./sub/B.TXT": "zwölf".encode(),
        "notes.md": b"x",
        "README": b"x",
        "._a.txt": b"x",
        "link.txt": None,
        "bad.txt": b"\xff",
        "empty.txt": b"",
        "n" * 200 + ".txt": b"long name",
    }
    raw = tar(members)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[packing]
    path = tmp_path / f"a.tar{packing}"
    path.write_bytes(pack(raw))
    caplog.set_level("INFO")
    found, skips = read(path)
    assert [d.text for d in found] == ["one\n", "zwölf", "long name"]
    assert [d.id for d in found][:2] == [f"a.tar{packing}/a.txt", f"a.tar{packing}/./sub/B.TXT"]
    assert skips.entries == [
        (f"a.tar{packing}/bad.txt", skip_log.INVALID_UTF8),
        (f"a.tar{packing}/empty.txt", skip_log.EMPTY),
    ]
    for said in ("1 .md", "1 file without a suffix", "1 hidden file,", "1 link or special file"):
        assert said in caplog.text


def test_an_archive_that_was_cut_or_changed_anywhere_is_refused(tmp_path):
    raw = tar({f"{n}.txt": b"text" * n * 40 for n in range(9)}, form=tarfile.USTAR_FORMAT)
    end = raw.rstrip(b"\0")
    path = tmp_path / "a.tar"
    for size in range(0, len(end) + 1, 256):
        path.write_bytes(raw[:size])
        with pytest.raises(errors.DataError, match=r"a\.tar"):
            read(path)
    for at in (600, 1536 + 150):  # a header further on
        path.write_bytes(raw[:at] + b"\xff" * 8 + raw[at + 8 :])
        with pytest.raises(errors.DataError, match=r"a\.tar"):
            read(path)
    path.write_bytes(raw + raw)
    with pytest.raises(errors.DataError, match="follows its end"):
        read(path)


def test_a_pointer_in_the_place_of_a_text_is_not_a_document(tmp_path):
    path = tmp_path / "a.txt"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    path.write_text(pointer)
    with pytest.raises(errors.DataError, match=r"a\.txt is a Git LFS pointer") as caught:
        read(path)
    assert "git lfs pull" in caught.value.hint
    path.write_text(f"How it looks: {pointer}")
    assert texts(path) == [f"How it looks: {pointer}"]


def test_an_archive_without_text_says_what_it_holds(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.md": b"x", "b.pdf": b"x", "c.pdf": b"x"}))
    with pytest.raises(errors.DataError, match=r"2 \.pdf, 1 \.md"):
        read(path)


def test_headers_of_an_archive_cannot_claim_memory(tmp_path, memory_growth):
    """A long name of 2 GB, which is a megabyte once compressed."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 * 2**30
    path = tmp_path / "a.tar.zst"
    packer = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as stream:
        stream.write(packer.compress(info.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(64):
            stream.write(packer.compress(b"\0" * 2**20))
        stream.write(packer.flush())
    script = """
import sys
from jaxlens import errors
from jaxlens.corpus.readers import documents
mark()
try:
    list(documents.read([sys.argv[1]]))
except errors.DataError:
    pass
else:
    sys.exit("it was read")
"""
    assert memory_growth(script, path) < 50


@pytest.mark.long
def test_members_of_an_archive_are_not_remembered(tmp_path, memory_growth):
    path = tmp_path / "a.tar"
    path.write_bytes(tar({f"{n}.txt": b"a" for n in range(40_000)}, form=tarfile.USTAR_FORMAT))
    script = """
import sys
from jaxlens.corpus.readers import documents
from jaxlens.models import tokenizer, loading
mark()
assert sum(1 for _ in documents.read([sys.argv[1]])) == 40_000
"""
    assert memory_growth(script, path) < 10  # of TarInfo alone it would be 60


SEPARATED = {
    "on its own line": "One.\nTwo.\n<|e|>\nThree.\n<|e|>\n",
    "at once": "One.\nTwo.<|e|>Three.",
    "CRLF, and a mark": "\ufeffOne.\r\nTwo.\r\n<|e|>\r\nThree.\r\n<|e|>\r\n\r\n",
    "one at the end": "One.\nTwo.<|e|>\nThree.<|e|>",
}


@pytest.mark.parametrize("case", SEPARATED)
def test_a_separator_parts_a_text_file_into_documents(tmp_path, case):
    path = tmp_path / "a.txt"
    path.write_text(SEPARATED[case], newline="")
    found, skips = read(path, separator="<|e|>")
    assert [(d.id, d.text) for d in found] == [("a.txt:1", "One.\nTwo."), ("a.txt:2", "Three.")]
    assert not skips.counts
    assert len(read(path)[0]) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 2**20])
def test_separators_are_found_wherever_the_reads_end(tmp_path, monkeypatch, size):
    from jaxlens.corpus.readers import plain_text

    monkeypatch.setattr(plain_text, "_PIECE_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\n--\r\nb\r\r\n----c\n--\r\n \r\n--\xff--d-")
    found, skips = read(path, separator="--")
    assert [d.text for d in found] == ["a", "b\r", "c", "d-"]
    assert skips.entries == [
        ("a.txt:3", skip_log.EMPTY),
        ("a.txt:5", skip_log.EMPTY),
        ("a.txt:6", skip_log.INVALID_UTF8),
    ]
    assert texts_by_line(path) == ["a", "--", "b\r", "----c", "--", "--\ufffd--d-"]


def texts_by_line(path):
    path.write_bytes(path.read_bytes().replace(b"\xff", "\ufffd".encode()))
    return [d.text for d in read(path, separator="\n")[0]]


def test_a_text_file_with_separators_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_BYTES", 100)
    path = tmp_path / "a.txt"
    path.write_text("|".join(["a" * 100, "b" * 101, "c" * 5000, "d"]))
    found, skips = read(path, separator="|")
    assert [d.text[0] for d in found] == ["a", "d"]
    assert skips.entries == [("a.txt:2-3", skip_log.TOO_LONG)]
    with pytest.raises(errors.DataError, match="one document") as caught:
        read(path)
    assert "corpus.separator" in caught.value.hint


def test_nested_fields_of_json_and_tables(tmp_path):
    rows = [
        {"doc": {"text": "a", "id": 1}, "doc.text": "literal"},
        {"doc": {"text": "b", "id": 2}},
        {"doc": None},
        {"doc": "c"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"doc": {"text": 1, "text": 2}}'
    )
    found, skips = read(path, text_field="doc.text", id_field="doc.id")
    assert [(d.id, d.text) for d in found] == [("1", "literal"), ("2", "b")]
    assert skips.counts == {skip_log.NO_TEXT: 2, skip_log.DUPLICATE_KEY: 1}
    columns = {"doc": [{"text": "a", "in": {"id": 7}}, {"text": None, "in": None}, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.arrow").write_bytes(arrow(columns))
    for kind in ("parquet", "arrow"):
        found, skips = read(tmp_path / f"a.{kind}", text_field="doc.text", id_field="doc.in.id")
        assert [(d.id, d.text) for d in found] == [("7", "a")]
        assert skips.counts == {skip_log.NO_TEXT: 2}
        with pytest.raises(errors.DataError) as caught:
            read(tmp_path / f"a.{kind}")
        assert caught.value.hint == (
            "its columns: doc.text, doc.in; name one: --set corpus.text_field=doc.text"
        )


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", "string_view"])
def test_columns_of_bytes_are_text_where_they_are_utf8(tmp_path, kind):
    values = [b"a", "é".encode(), b"\xff", None]
    if kind == "string_view":
        values[2] = b"b"
    column = pyarrow.array(values, pyarrow.binary()).cast(kind)
    (tmp_path / "a.arrow").write_bytes(arrow({"text": column}))
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    for name in ("a.arrow", "a.parquet"):
        found, skips = read(tmp_path / name)
        assert [d.text for d in found] == ["a", "é", *(["b"] if kind == "string_view" else [])]
        assert skips.counts.get(skip_log.INVALID_UTF8, 0) == (kind != "string_view")
        assert skips.counts[skip_log.NO_TEXT] == 1


def test_an_arrow_file_that_was_cut_is_refused(tmp_path):
    raw = arrow(COLUMNS)
    path = tmp_path / "a.arrow"
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        with pytest.raises(errors.DataError, match=r"a\.arrow"):
            read(path)


def test_offsets_that_lead_out_of_an_arrow_file_are_damage(tmp_path):
    raw = arrow({"text": ["abcd", "efgh"]})
    offsets = b"\0\0\0\0\x04\0\0\0\x08\0\0\0"
    assert raw.count(offsets) == 1
    path = tmp_path / "a.arrow"
    for other in (b"\0\0\0\0\xff\xff\0\0\x08\0\0\0", b"\0\0\0\0\x04\0\0\0\xff\xff\0\0"):
        path.write_bytes(raw.replace(offsets, other))
        with pytest.raises(errors.DataError, match="damaged"):
            read(path)


def test_names_of_columns_that_are_no_utf8_are_damage(tmp_path):
    path = tmp_path / "a.arrow"
    raw = arrow({"text": ["a"], "other": [1]})
    path.write_bytes(raw.replace(b"other", b"oth\x89r"))
    with pytest.raises(errors.DataError, match="damaged"):
        read(path)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_batches_that_are_compressed_are_refused(tmp_path, codec):
    options = pyarrow.ipc.IpcWriteOptions(compression=codec)
    path = tmp_path / "a.arrow"
    dictionary = pyarrow.array(["a", "b"]).dictionary_encode()
    for column in (["a", "b"], dictionary):
        path.write_bytes(arrow({"text": column}, options=options))
        with pytest.raises(errors.DataError, match="compressed"):
            read(path)
    path.write_bytes(arrow({"text": dictionary}))
    assert texts(path) == ["a", "b"]


@pytest.fixture
def saved(tmp_path):
    """A folder as ``datasets.save_to_disk`` writes it, with what it caches there."""

    def make(name="set", files=2):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
        for number, file in enumerate(names):
            columns = {"text": [f"{name} {number} {n}" for n in range(3)]}
            (folder / file).write_bytes(arrow(columns))
        (folder / "cache-0123.arrow").write_bytes(arrow({"text": ["cached"]}))
        state = {"_data_files": [{"filename": file} for file in names], "_split": "train"}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "dataset_info.json").write_text("{}")
        return folder

    return make


def test_a_saved_data_set_is_read_file_by_file(saved):
    folder = saved()
    assert texts(folder) == [f"set {n} {row}" for n in range(2) for row in range(3)]
    found, _ = read(folder)
    assert found[3].id == "data-00001-of-00002.arrow:1"
    survey = sources.survey([folder])
    assert survey.passed == {".arrow": 1}  # what describes the data set is part of it
    link = folder / "data-00001-of-00002.arrow"
    link.rename(folder.parent / "moved")
    link.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(errors.MissingError, match="data-00001"):
        read(folder)


def test_a_saved_data_set_that_lacks_a_file_is_refused(saved):
    folder = saved()
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(errors.MissingError, match="data-00001"):
        read(folder)


def test_a_selection_in_another_order_is_refused(saved):
    folder = saved()
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_data_files": ["i.arrow"]}))
    with pytest.raises(errors.DataError) as caught:
        read(folder)
    assert "flatten_indices" in caught.value.hint


def test_several_splits_are_named(saved, tmp_path):
    splits = ["train", "test"]
    for name in splits:
        saved(f"sets/{name}", files=1)
    folder = tmp_path / "sets"
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(errors.DataError, match="2 splits: train, test") as caught:
        read(folder)
    assert f"{folder}/train {folder}/test" in caught.value.hint
    assert len(read(folder / "train")[0]) == 3
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert len(read(folder)[0]) == 6


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize(
    "data", [b"", b"[" * 99999, b'{"_data_files": [{}], "splits": 3}', b"\xff"]
)
def test_damaged_descriptions_of_a_data_set_are_refused(saved, name, data):
    folder = saved()
    (folder / name).write_bytes(data)
    with pytest.raises(errors.DataError, match=name):
        read(folder)


def test_a_folder_gives_files_of_one_rank_and_says_what_it_passes_over(tmp_path, caplog):
    (tmp_path / "sub").mkdir()
    kinds = ("a.txt", "b.csv", "c.json", "sub/d.json", "e.md", "f.md", "README", ".hidden")
    for name in kinds:
        (tmp_path / name).write_text('text\n{"text": "a"}')
    survey = sources.survey([tmp_path])
    assert [source.name for source in survey.sources] == ["a.txt"]
    assert survey.passed == {
        **{".md": 2, ".json": 2, ".csv": 1},
        **{"files without a suffix": 1, "hidden files": 1},
    }
    caplog.set_level("INFO")
    read(tmp_path)
    assert "passed over in folders: 2 .json, 2 .md" in caplog.text
    (tmp_path / "a.txt").unlink()
    assert [source.name for source in sources.find([tmp_path])] == ["b.csv"]
    (tmp_path / "b.csv").unlink()
    assert [source.name for source in sources.find([tmp_path])] == ["c.json", "sub/d.json"]
    assert [s.name for s in sources.find([f"{tmp_path}/*"])] == ["c.json", "sub/d.json"]
    for name in ("c.json", "sub/d.json"):
        (tmp_path / name).unlink()
    with pytest.raises(
        errors.MissingError, match=r"but 2 \.md, 1 file without a suffix, 1 hidden file;?"
    ):
        sources.find([tmp_path])


def test_links_that_are_followed_are_counted(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/x.txt", "b/y.txt", "b/z.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "link.txt").symlink_to(tmp_path / "b" / "y.txt")
    (tmp_path / "a" / "folder").symlink_to(tmp_path / "b")
    caplog.set_level("INFO")
    found, _ = read(tmp_path / "a")
    assert [d.id for d in found] == ["folder/y.txt", "folder/z.txt", "link.txt", "x.txt"]
    assert "through symbolic links: 3" in caplog.text


LACKING = {
    "other names": (
        {"body": "a", "title": "b"},
        {},
        "there are: body, title; name one: --set corpus.text_field=body",
    ),
    "nested": ({"doc": {"text": "a"}}, {}, "name one: --set corpus.text_field=doc.text"),
    "only a conversation": ({"turns": [{"role": "user"}]}, {}, "turns; none of them is text"),
    "a name with spaces": ({"n": 1, " Text": "a"}, {}, "--set 'corpus.text_field= Text'"),
    "a conversation": (
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"text_field": "messages"},
        "'messages' is a list of messages (role, content), not text",
    ),
    "a number": ({"text": 3}, {}, "'text' is a value of type int, not text"),
    "columns of pandas": ({"text": {"0": "a"}}, {}, "is an object with the fields 0, not text"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_corpus_of_which_nothing_is_text_says_which_fields_are_there(write_lines, case, caplog):
    record, options, said = LACKING[case]
    path = write_lines(*[record] * 3)
    skips = skip_log.SkipLog()
    assert list(documents.read([path], skips=skips, **options)) == []
    assert said in "; ".join(skips.why) and not caplog.text  # the error says it
    assert skips.skipped == 3
    write_lines(*[record] * 3, {options.get("text_field", "text"): "a text"})
    skips = skip_log.SkipLog()
    assert len(list(documents.read([path], skips=skips, **options))) == 1
    assert skips.why is None
    assert not caplog.text
    write_lines(*[record] * 3)
    write_lines({options.get("text_field", "text"): "a text"}, name="z.jsonl")
    assert len(list(documents.read([path.parent], **options))) == 1
    assert caplog.text.count(said) == 1


def iconv(encoding, name="a.txt"):
    end = name.rpartition(".")[2]
    return f"iconv -f {encoding} -t UTF-8 < {name} > {name.partition('.')[0]}.new.{end}"


ROW = b'{"text": "It rains."}'
PARQUET = b"PAR1" + bytes(range(128, 200)) * 2
SUSPECTS = {
    "UTF-16": ("a.txt", "It rains.".encode("utf-16"), "is UTF-16", iconv("UTF-16")),
    "UTF-16 without a mark": ("a.txt", "\xefIt rains.".encode("utf-16-le"), "", iconv("UTF-16LE")),
    "Latin-1": (
        "a.txt",
        b"It\nrains na\xefvely.",
        "line 2 has the byte 0xef",
        iconv("WINDOWS-1252"),
    ),
    "C1": ("a.txt", b"na\xefve \x81", "", iconv("ISO-8859-1")),
    "UTF-16 lines": (
        "a.jsonl",
        ROW.decode().encode("utf-16"),
        "is UTF-16",
        iconv("UTF-16", "a.jsonl"),
    ),
    "UTF-16 JSON": (
        "a.json",
        ROW.decode().encode("utf-16"),
        "not UTF-8",
        iconv("UTF-16", "a.json"),
    ),
    "UTF-16 table": ("a.csv", "text\na".encode("utf-16"), "is UTF-16", iconv("UTF-16", "a.csv")),
    "Latin-1 table": ("a.csv", b"text\nna\xefve", "line 2", iconv("WINDOWS-1252", "a.csv")),
    "gzip": ("a.jsonl", gzip.compress(ROW), "a gzip file", "mv a.jsonl a.jsonl.gz"),
    "bzip2": ("a.txt", bz2.compress(ROW * 9), "a bzip2 file", "mv a.txt a.txt.bz2"),
    "Parquet": ("a.jsonl", PARQUET, "is a Parquet file", "mv a.jsonl a.parquet"),
    "ZIP": ("a.txt", b"PK\x03\x04\x80\x80", "ZIP archive", "unpack it"),
    "LFS": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1", "LFS", "git lfs pull"),
    "a page": ("a.jsonl", b"<!DOCTYPE html><p>", "a web page", "hf download"),
    "pretty": ("a.jsonl", b'{\n "text": "a"\n}\n', "not one record a line", "jq -c '.' < a.jsonl"),
    "pretty and long": (
        "a.jsonl",
        b'{\n "text": "%s"}' % (b"a" * 2**17),
        "",
        "jq -c '.' < a.jsonl",
    ),
    "one beside another": ("a.jsonl", ROW * 2, "not one record a line", "jq -c '.' < a.jsonl"),
    "array": ("a.jsonl", b"[%s]" % ROW, "not one record", "jq -c '.[]' < a.jsonl > a.new.jsonl"),
    "texts": ("a.jsonl", b'"a"\n"b"\n', "texts alone", "jq -c '{text: .}' < a.jsonl > a.new.jsonl"),
    "list of texts": (
        *("a.json", b'["a", "b"]', "texts alone"),
        "jq -c '.[] | {text: .}' < a.json > a.new.jsonl",
    ),
    "packed": (
        *("a.jsonl.gz", gzip.compress(b'["a"]'), "texts alone"),
        "gzip -dc a.jsonl.gz | jq -c '.[] | {text: .}' > a.new.jsonl",
    ),
    "carriage returns": (
        *("a.jsonl", ROW + b"\r" + ROW, "carriage return"),
        r"tr '\r' '\n' < a.jsonl > a.new.jsonl",
    ),
    "empty": ("a.txt", b"", "a.txt is empty", "leave it out"),
    "white space": ("a.jsonl", b" \n\n", "nothing but white space", "leave it out"),
    "only a header": ("a.csv", b"text\n", "holds no records", "leave it out"),
    "a mark of Excel": ("a.csv", b"sep=;\ntext;n\na;1\n", "no column", "remove that line"),
}


@pytest.mark.parametrize("case", SUSPECTS)
def test_file_of_which_nothing_is_usable_says_what_it_is_and_the_command(
    tmp_path, monkeypatch, case
):
    name, data, what, remedy = SUSPECTS[case]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data)
    skips = skip_log.SkipLog()
    try:
        assert list(documents.read([name], skips=skips)) == []
        message, hint = skips.why
    except errors.DataError as error:
        message, hint = error.message, error.hint
    assert name in message and what in message
    assert remedy in hint
    command = hint.partition(": ")[2]
    programs = [part.split(" ")[0] for part in command.split(" | ") if "text: ." not in part]
    programs += ["jq"] * ("jq -c" in command)
    if command and what != "is a Parquet file" and all(map(shutil.which, programs)):
        subprocess.run(command, shell=True, check=True)
        (made,) = {one.name for one in tmp_path.iterdir()} - ({name} - {command.split(" ")[-1]})
        assert read(made)[0]


def test_files_without_usable_text_are_counted_in_the_error(tmp_path, tokenizer):
    for number in range(3):
        (tmp_path / f"{number}.txt").write_bytes(b"")
    skips = skip_log.SkipLog()
    with pytest.raises(errors.DataError) as caught:
        tokenize.build(
            documents.read([tmp_path], skips=skips),
            *(tokenizer, io.BytesIO().write),
            vocab_size=100,
            skips=skips,
        )
    assert caught.value.message == "0.txt is empty; 2 other files likewise without usable text"


def test_warnings_about_unusable_files_end_somewhere(tmp_path, caplog):
    (tmp_path / "z.txt").write_text("a text")
    for number in range(40):
        (tmp_path / f"{number}.txt").write_bytes(b"\xff")
    read(tmp_path)
    assert 20 < len(caplog.records) < 25


def test_every_suffix_has_one_reader():
    assert formats.suffix("A.JSON.GZ") == ".json.gz"
    assert formats.suffix("a.tar.zst") == ".tar.zst"
    assert formats.suffix("json") == ""
    assert [formats.suffix("a" + end) for end in formats.FORMATS] == list(formats.FORMATS)


def test_a_new_format_is_one_reader_and_one_line(tmp_path, monkeypatch):
    """A toy format is registered; its texts become the tokens of a token file."""

    def read_toy(source, request):
        assert request.fields.names[0] == "text"
        for number, text in enumerate(Path(source.path).read_text().split("|"), 1):
            yield source.location(number), (text, None)

    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    formats.register(formats.Format(".toy", read_toy))
    (tmp_path / "a.toy").write_text("the cat|sat|  |on the mat")
    (tmp_path / "a.txt").write_text("the cat")
    model_tokenizer = tokenize.load_tokenizer(PACKAGED)
    ingested = ingest.ingest(
        config.CorpusConfig(paths=(str(tmp_path / "a.toy"),)),
        model_tokenizer,
        vocab_size=model_tokenizer.get_vocab_size(),
        bos_id=None,
        directory=tmp_path / "tokens",
        wanted="0" * 64,
    )
    ids = [model_tokenizer.encode(text).ids for text in ("the cat", "sat", "on the mat")]
    with ingested.open() as tokens:
        assert tokens.read(0, ingested.index.n_tokens).tolist() == [*ids[0], *ids[1], *ids[2]]
    assert ingested.index.id_of(1) == "a.toy:2" and ingested.skipped == {"empty": 1}
    assert [s.name for s in sources.find([tmp_path])] == ["a.toy", "a.txt"]
    assert ".toy" in formats.supported()
    with pytest.raises(errors.MissingError, match="no text at"):
        monkeypatch.undo()
        sources.find([f"{tmp_path}/*.toy"])
