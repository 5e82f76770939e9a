import pyarrow
import pyarrow.parquet
import pytest

from jaxlens import errors
from jaxlens.corpus import documents


@pytest.fixture
def write_table(tmp_path):
    def write(columns, **options):
        path = tmp_path / "t.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
        return path

    return write


def read(path, **options):
    skips = documents.SkipLog()
    return list(documents.read([path], skips=skips, **options)), skips


def test_rows_are_documents_with_their_ids(write_table):
    path = write_table({"n": list(range(300)), "text": [f"text {n}" for n in range(300)]})
    found, _ = read(path, id_field="n")
    assert [d.text for d in found] == [f"text {n}" for n in range(300)]
    assert [d.id for d in found] == [str(n) for n in range(300)]
    assert found[299].source == "t.parquet:300"


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
        ("t.parquet:2", documents.EMPTY),
        ("t.parquet:3", documents.INVALID_UTF8),
        ("t.parquet:4", documents.NO_TEXT),
    ]


def test_numbers_are_not_text(write_table):
    found, skips = read(write_table({"text": [1, 2]}))
    assert not found
    assert skips.counts == {documents.NOT_A_STRING: 2}


def test_missing_column_is_an_error_that_lists_the_columns(write_table):
    with pytest.raises(errors.DataError, match="no column 'text'") as caught:
        read(write_table({"body": ["a"], "key": ["b"]}))
    assert caught.value.hint == "its columns: body, key"


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
from jaxlens.corpus import documents
mark()
assert sum(1 for _ in documents.read([sys.argv[1]])) == 1000
"""
    assert memory_growth(script, path) < 40  # MiB: a batch, the buffers, Arrow's own code
