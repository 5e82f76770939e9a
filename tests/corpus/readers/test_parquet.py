import io

import pyarrow
import pyarrow.parquet
import pytest

from jaxlens import errors
from jaxlens.corpus.readers import documents, parquet_pages, skip_log


@pytest.fixture
def write_table(tmp_path):
    def write(columns, **options):
        path = tmp_path / "t.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
        return path

    return write


def read(path, **options):
    skips = skip_log.SkipLog()
    return list(documents.read([path], skips=skips, **options)), skips


def test_rows_are_documents_with_their_ids(write_table):
    path = write_table({"n": list(range(300)), "text": [f"text {n}" for n in range(300)]})
    found, _ = read(path, id_field="n")
    assert [d.text for d in found] == [f"text {n}" for n in range(300)]
    assert [d.id for d in found] == [str(n) for n in range(300)]
    assert str(found[299].location) == "t.parquet:300"


def test_rows_without_id_column_are_named_after_their_number(write_table):
    found, _ = read(write_table({"text": ["a", "b"]}))
    assert [d.id for d in found] == ["t.parquet:1", "t.parquet:2"]


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string()])
def test_text_can_be_any_kind_of_string(write_table, kind):
    column = pyarrow.array(["a", "b", "a"], kind)
    for values in (column, column.dictionary_encode()):
        found, _ = read(write_table({"text": values}))
        assert [d.text for d in found] == ["a", "b", "a"]


def test_unusable_rows_are_counted(write_table):
    # Arrow checks neither on writing nor on reading that a string is UTF-8.
    broken = pyarrow.array([b"a", b"", b"\xff", None, b"b"], pyarrow.binary()).view("string")
    found, skips = read(write_table({"text": broken}))
    assert [d.text for d in found] == ["a", "b"]
    assert skips.entries == [
        ("t.parquet:2", skip_log.EMPTY),
        ("t.parquet:3", skip_log.INVALID_UTF8),
        ("t.parquet:4", skip_log.NO_TEXT),
    ]


def test_numbers_are_not_text(write_table):
    found, skips = read(write_table({"text": [1, 2]}))
    assert not found
    assert skips.counts == {skip_log.NOT_A_STRING: 2}


def test_missing_column_is_an_error_that_lists_the_columns(write_table):
    with pytest.raises(errors.DataError, match="no column 'text'") as caught:
        read(write_table({"body": ["a"], "key": ["b"]}))
    assert caught.value.hint == "its columns: body, key; name one: --set corpus.text_field=body"


MAKES = {
    "snappy": {},
    "plain": {"compression": "none", "use_dictionary": False},
    "second format of pages": {"data_page_version": "2.0", "compression": "gzip"},
    "zstd, with checksums": {"compression": "zstd", "write_page_checksum": True},
    "lz4, no statistics": {"compression": "lz4", "write_statistics": False},
    "brotli, small pages": {"compression": "brotli", "data_page_size": 100, "write_batch_size": 3},
    "many groups": {"row_group_size": 7},
    "page index": {"write_page_index": True},
    "format 1.0": {"version": "1.0"},
    "dictionary that grew too large": {"dictionary_pagesize_limit": 64},
}


@pytest.mark.parametrize("make", MAKES)
def test_tables_of_any_make_are_read(write_table, make):
    texts = [f"text {n % 50} {'é' * (n % 9)}" for n in range(400)]
    columns = {
        "a": [[1, 2], None, [], [3]] * 100,
        "b": [{"c": True, "d": [{"e": 1.5}]}, None] * 200,
        "m": pyarrow.array([[("k", 1)]] * 400, pyarrow.map_("string", "int64")),
        "text": texts,
        "none": pyarrow.nulls(400),
    }
    found, skips = read(write_table(columns, **MAKES[make]))
    assert [d.text for d in found] == texts
    assert not skips.counts


def test_a_table_without_rows_has_no_documents(write_table):
    assert read(write_table({"text": pyarrow.array([], "string")})) == ([], skip_log.SkipLog())


def test_a_page_of_the_same_text_is_no_bomb(write_table):
    found, _ = read(write_table({"text": ["a" * 10**6] * 100}, use_dictionary=False))
    assert len(found) == 100


def varint(number):
    more = number >> 7
    return bytes([number & 0x7F | 0x80 * bool(more)]) + (varint(more) if more else b"")


def integers(**fields):
    """Integers of a structure in the compact protocol, named after their numbers."""
    out, before = b"", 0
    for name, value in fields.items():
        number = int(name[1:])
        out += bytes([(number - before) << 4 | 6]) + varint(
            value << 1 if value >= 0 else ~value << 1 | 1
        )
        before = number
    return out


def one_page(inflated, stored, dictionary=0, claimed=1000, at=4, values=5):
    """A file of one column with one page, which may lie."""
    kind = 7 if dictionary else 5
    page = integers(f1=0, f2=inflated, f3=stored) + bytes([(kind - 3) << 4 | 12])
    page += integers(f1=dictionary or 5) + b"\0\0" + b"\0" * 50
    chunk = integers(f5=values, f7=claimed, f9=at) + b"\0"
    groups = b"\x49\x1c" + b"\x19\x1c" + b"\x3c" + chunk + b"\0" + b"\0" + b"\0"
    return b"PAR1" + page + groups + len(groups).to_bytes(4, "little") + b"PAR1"


LIES = {
    "more than there is": {"inflated": 50, "stored": 2**31 - 1},
    "less than nothing": {"inflated": 50, "stored": -1},
    "much unpacked": {"inflated": 2**31 - 1, "stored": 50},
    "a large dictionary": {"inflated": 50, "stored": 50, "dictionary": 2**31 - 1},
    "a chunk elsewhere": {"inflated": 50, "stored": 50, "at": -1},
    "a chunk without size": {"inflated": 50, "stored": 50, "claimed": -5},
    "endless numbers": {"inflated": 2**70, "stored": 50},
}


def test_claims_that_the_file_can_hold_are_fine():
    parquet_pages.check(io.BytesIO(one_page(50, 50)))


@pytest.mark.parametrize("lie", LIES)
def test_a_page_that_claims_what_its_file_cannot_hold_is_refused(tmp_path, lie):
    raw = one_page(**LIES[lie])
    with pytest.raises(ValueError):
        parquet_pages.check(io.BytesIO(raw))
    (tmp_path / "t.parquet").write_bytes(raw)
    with pytest.raises(errors.DataError, match=r"t\.parquet is damaged"):
        read(tmp_path / "t.parquet")


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    columns = [pyarrow.array(["a"])] * 3
    for names in (["text", "text", "b"], ["id", "text", "id"]):
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names), path)
        with pytest.raises(errors.DataError, match="2 columns"):
            read(path)


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_values_that_python_has_not_are_no_text_and_no_id(write_table, unit):
    far = pyarrow.array([2**62, 1], pyarrow.timestamp(unit))
    found, skips = read(write_table({"text": ["a", "b"], "id": far}))
    assert [d.id for d in found] == ["t.parquet:1", "t.parquet:2"]
    assert not skips.counts
    found, skips = read(write_table({"text": far}))
    assert skips.counts == {skip_log.NOT_A_STRING: 2}


def test_a_nested_column_is_refused_as_text_and_is_no_id(write_table):
    path = write_table({"text": [["a"], []], "t": ["a", "b"], "id": [{"a": 1}, None]})
    with pytest.raises(errors.DataError, match=r"'text' is not text, but list<"):
        read(path)
    found, _ = read(path, text_field="t")
    assert [d.id for d in found] == ["t.parquet:1", "t.parquet:2"]


def test_one_column_can_be_both_text_and_id(write_table):
    found, _ = read(write_table({"text": ["a", "b"]}), id_field="text")
    assert [(d.id, d.text) for d in found] == [("a", "a"), ("b", "b")]


def test_truncated_file_is_an_error(write_table):
    path = write_table({"text": [f"text {n}" for n in range(1000)]})
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(errors.DataError, match=r"t\.parquet"):
            read(path)


def test_flipped_bits_under_a_page_checksum_are_an_error(write_table):
    path = write_table(
        {"text": [f"text {n}" for n in range(1000)]},
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    whole = path.read_bytes()
    place = whole.index(b"text 500")
    path.write_bytes(whole[:place] + b"T" + whole[place + 1 :])
    with pytest.raises(errors.DataError, match="damaged"):
        read(path)


def test_a_row_group_is_never_held_whole(write_table, memory_growth):
    texts = [f"{n:06d}" * 20_000 for n in range(1000)]
    path = write_table(
        {"text": texts}, compression="none", use_dictionary=False, write_batch_size=4
    )
    assert path.stat().st_size > 100_000_000
    script = """
import sys
import pyarrow.parquet
from jaxlens.corpus.readers import documents
mark()
assert sum(1 for _ in documents.read([sys.argv[1]])) == 1000
"""
    assert memory_growth(script, path) < 40  # MiB: a batch, the buffers, Arrow's own code


def repeated(path, mebibytes, rows=64, **options):
    """A file of a few hundred bytes: one text of ``a``, which every row repeats."""
    text = "a" * (mebibytes * 2**20)
    if options:
        column = pyarrow.array([text] * rows)
    else:
        column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows), [text])
    how = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30}
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, **how, **options)
    assert path.stat().st_size < 10_000


READ_ALL = """
import sys
import pyarrow.parquet
from jaxlens.corpus.readers import documents
mark()
assert sum(1 for _ in documents.read([sys.argv[1]])) == int(sys.argv[2])
"""


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"column_encoding": "DELTA_BYTE_ARRAY"}, marks=pytest.mark.long)]
)
def test_a_text_that_every_row_repeats_is_held_a_few_times_not_sixteen(
    tmp_path, memory_growth, options
):
    path = tmp_path / "t.parquet"
    rows = 64 if not options else 24
    if options:
        options = options | {"use_dictionary": False, "data_page_size": 2**20}
    repeated(path, 15, rows, **options)
    assert (
        memory_growth(READ_ALL, path, rows) < 15 * 18
    )  # sixteen rows at once took 36 and 49 times


def test_pyarrow_alone_takes_hundreds_of_megabytes_for_a_file_of_kilobytes(tmp_path, memory_growth):
    """Why `parquet_pages` looks at the pages first: once this fails, it can go."""
    path = tmp_path / "t.parquet"
    repeated(path, 20)
    script = """
import sys
import pyarrow.parquet
mark()
file = pyarrow.parquet.ParquetFile(sys.argv[1], pre_buffer=False, buffer_size=2**20)
assert sum(batch.num_rows for batch in file.iter_batches(16)) == 64
"""
    assert memory_growth(script, path) > 20 * 18
    with pytest.raises(errors.DataError, match="bytes unpacked"):
        read(path)


def test_a_page_that_no_text_packs_so_small_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "t.parquet"
    repeated(path, 100)
    with pytest.raises(errors.DataError, match="104857604 bytes unpacked"):
        read(path)
    both = pyarrow.table({"text": ["a"] * 9, "other": ["b" * 30 * 2**20] * 9})
    pyarrow.parquet.write_table(both, path, compression="zstd")
    assert len(read(path)[0]) == 9  # what is not read does not matter
