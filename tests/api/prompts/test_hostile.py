"""Files of prompts as people and programs really write them, and what may be wrong with them."""

import contextlib
import csv
import gzip
import json
import os
import threading

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
from sweeps import refused, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.api.prompts import cells, limits, prompt_file, spacing
from jaxlens.export import records, text
from jaxlens.files import outputs
from jaxlens.view.prompt_table import figure


def run(tiny, path, out=None, *words):
    """The command on a file: its exit code."""
    asked = () if out is None else ("--out", out)
    how = ("--model", tiny, "--top-k", 1, "--layers", "-1")
    return run_cli("prompts", path, *how, *asked, *words)


def lines(path, *rows):
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )
    return path


def rows_of(path):
    """The records of a file in its format."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".json":
        return json.loads(path.read_text())["records"]
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


OUTPUTS = ["parquet", "csv", "json"]
BIG = 10**30


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_no_value_of_the_metadata_is_lost_or_ends_the_command(tiny, tmp_path, suffix):
    rows = [
        {"prompt": "The", "big": BIG, "huge": 2**63, "half": "\ud800", "nan": [float("nan"), 1]},
        {"prompt": "A", "big": 5, "huge": 1, "half": "x", "nan": {"a": float("inf")}},
    ]
    out = tmp_path / f"o.{suffix}"
    assert run(tiny, lines(tmp_path / "p.jsonl", *rows), out) == 0
    first, second = rows_of(out)
    if suffix == "json":
        assert first["big"] == BIG and first["huge"] == 2**63 and first["half"] == "\ud800"
        assert first["nan"] == [None, 1] and second["nan"] == {"a": None}
        return
    assert first["big"] == str(BIG) and second["big"] == "5"
    assert int(first["huge"]) == 2**63
    if suffix == "parquet":
        assert isinstance(first["huge"], int) and first["half"] == r"\ud800"
    else:
        raw = text.unescape(first["half"])
        assert raw.decode("utf-8", "surrogatepass") == "\ud800"
    assert json.loads(first["nan"].replace(r"\\", "\\")) == [None, 1]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_binary_columns_are_read_as_text_where_they_are_and_written(tiny, tmp_path, suffix, capsys):
    path, out = tmp_path / "p.parquet", tmp_path / f"o.{suffix}"
    columns = {
        "prompt": [b"The", b"A", b"\xff"],
        "answer": [b"city", b"\xff\xfe", b"x"],
        "raw": [b"\xff=", b"=1", None],
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    assert run(tiny, path, out) == 0
    said = capsys.readouterr().err
    assert "1 row: prompt is bytes: decode it to text; the first is row 2" in said
    assert "1 row: answer is not text: answer; the first is row 1" in said
    first, second = rows_of(out)
    assert first["text_answer"] == " city" and not second["text_answer"]
    wanted = {"parquet": [b"\xff=", b"=1"], "csv": [r"\xff=", r"\x3d1"], "json": [r"\xff=", "=1"]}
    assert [first["raw"], second["raw"]] == wanted[suffix]


def test_what_is_nested_too_deeply_is_counted(tiny, tmp_path, capsys):
    deep, good = "[" * 900 + '"a"' + "]" * 900, {"prompt": "The", "answer": "a", "m": [[1]]}
    rows = [f'{{"text": "The", "{key}": {deep}}}\n' for key in ("answer", "m", "prompt")]
    endless = '{"prompt": "The", "m": ' + "[" * 200_000 + "\n"
    path = lines(tmp_path / "p.jsonl", *rows, endless, good)
    for suffix in OUTPUTS:
        assert run(tiny, path, tmp_path / f"o.{suffix}") == 0
        assert "4 rows: row is nested more than 64 levels deep" in capsys.readouterr().err
    assert not limits.is_deep(json.loads("[" * 64 + "]" * 64))
    assert limits.is_deep(json.loads("[" * 65 + "1" + "]" * 65))


def test_an_answer_that_is_an_object_is_counted_and_the_others_are_read(tiny, tmp_path, capsys):
    answers = [{"a": 1}, "b", ["c", ["d"]], [None], 7]
    path = lines(tmp_path / "p.jsonl", *({"prompt": "The", "answer": one} for one in answers))
    out = tmp_path / "o.json"
    assert run(tiny, path, out) == 0
    problems = {one["prompt"]: one["what"] for one in json.loads(out.read_text())["problems"]}
    assert problems == {
        0: "answer is not text: answer",
        2: "answer is not text: answer",
        3: "answer is missing: answer",
    }
    assert [row["text_answer.1"] for row in rows_of(out)] == [None, " b", " c", None, " 7"]
    capsys.readouterr()
    assert "row 0: answer is not text" in refused(
        capsys, 65, "prompts", path, "--model", tiny, "--strict"
    )


def test_numbers_with_more_digits_than_python_converts_stay_text(tmp_path):
    path = lines(tmp_path / "p.jsonl", f'{{"prompt": "a", "m": {"9" * 5000}}}\n')
    assert prompt_file.read(path).column("m") == ["9" * 5000]


@pytest.mark.parametrize(
    ("name", "data", "limit"),
    [
        ("p.csv.gz", b"prompt\n" + b"a" * 5000, "MAX_BYTES"),
        ("p.csv.gz", b"prompt\n" + b"a\n" * 2000, "MAX_ROWS"),
        ("p.csv.gz", b"prompt," + b"," * 5000 + b"\n", "MAX_VALUES"),
        ("p.csv.gz", b"prompt\na" + b"," * 5000 + b"\n", "MAX_VALUES"),
        ("p.jsonl.gz", b'{"prompt": "' + b"a" * 5000, "MAX_BYTES"),
        ("p.jsonl.gz", b"{}\n" * 2000, "MAX_ROWS"),
        ("p.jsonl.gz", b"[" + b"[]," * 3000 + b"1]\n", "MAX_VALUES"),
        ("p.json.gz", b"[" + b"1," * 5000 + b"1]", "MAX_BYTES"),
        ("p.json.gz", b"[[" + b"1," * 4500 + b"1]]", "MAX_VALUES"),
        ("p.json.gz", b"[" + b"1," * 1500 + b"1]", "MAX_ROWS"),
        ("p.json.gz", b"{}\n" * 2000, "MAX_ROWS"),
    ],
)
def test_a_file_of_too_much_is_refused_before_it_is_held(tmp_path, monkeypatch, name, data, limit):
    for one, most in (("MAX_BYTES", 10_000), ("MAX_ROWS", 1000), ("MAX_VALUES", 4000)):
        small = most // 4 if one == limit == "MAX_BYTES" else most
        monkeypatch.setattr(limits, one, small)
    (tmp_path / name).write_bytes(gzip.compress(data * (10 if limit == "MAX_BYTES" else 1)))
    what = {"MAX_BYTES": "bytes of data", "MAX_ROWS": "rows", "MAX_VALUES": "values"}[limit]
    with pytest.raises(errors.DataError, match=f"holds more than [0-9,]+ {what}") as refusal:
        prompt_file.read(tmp_path / name)
    assert "split it" in refusal.value.hint


def test_many_columns_of_few_rows_each_are_too_much_together(tmp_path, monkeypatch):
    path = lines(tmp_path / "p.jsonl", *({f"c{number}": 1} for number in range(100)))
    monkeypatch.setattr(limits, "MAX_VALUES", 9_999)
    with pytest.raises(errors.DataError, match="9,999 values"):
        prompt_file.read(path)
    monkeypatch.setattr(limits, "MAX_VALUES", 10_000)
    assert prompt_file.read(path).n_rows == 100


def test_a_parquet_file_of_too_much_is_refused(tmp_path, monkeypatch):
    def write(**columns):
        path = tmp_path / "p.parquet"
        pyarrow.parquet.write_table(pa.table(columns), path)
        return path

    monkeypatch.setattr(limits, "MAX_ROWS", 1000)
    with pytest.raises(errors.DataError, match="more than 1,000 rows"):
        prompt_file.read(write(prompt=["The"] * 1001))
    monkeypatch.setattr(limits, "MAX_BYTES", 10_000_000)
    used = pa.DictionaryArray.from_arrays(pa.array([0] * 900, pa.int32()), ["a" * 20_000])
    inside = pa.ListArray.from_arrays(pa.array([0, 900], pa.int32()), used)
    for values in (used, used.dictionary_decode(), inside):
        with pytest.raises(errors.DataError, match="more than 10,000,000 bytes"):
            prompt_file.read(write(prompt=values))
    monkeypatch.setattr(limits, "MAX_VALUES", 20_000)
    nothing = pa.array([[None] * 1000] * 30, pa.list_(pa.null()))
    with pytest.raises(errors.DataError, match="more than 20,000 values"):
        prompt_file.read(write(m=nothing))
    table = prompt_file.read(write(m=nothing[:9], kind=used[:9].dictionary.take(used.indices[:9])))
    assert table.n_rows == 9 and len(table.column("m")[8]) == 1000


HEAD = ("prompt", "answer")
READ = {"prompt": ["The people, of"], "answer": ["city"]}


@pytest.mark.parametrize(
    "data",
    [
        'prompt,answer\n"The people, of",city\n',
        "prompt;answer\nThe people, of;city\n",
        '"prompt";"answer"\r\n"The people, of";"city"\r\n',
        "prompt\tanswer\nThe people, of\tcity\n",
        "sep=;\r\nprompt;answer\r\nThe people, of;city\r\n",
        '"sep=;"\nprompt;answer\nThe people, of;city\n',
        'SEP=,\nprompt,answer\n"The people, of",city\n',
        "\ufeffsep=;\nprompt;answer\nThe people, of;city\n",
        "\n  \nprompt;answer\n\nThe people, of;city\n\n",
        '\ufeffprompt,answer\r"The people, of",city\r',
    ],
)
def test_cells_are_told_apart_as_spreadsheets_write_them(tmp_path, data):
    path = tmp_path / "p.csv"
    path.write_text(data, newline="")
    table = prompt_file.read(path)
    assert table.names == HEAD and table.columns == READ and not table.bad


def test_a_comma_in_the_heading_decides_and_a_quoted_one_does_not(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,a;b\nx;y,z\n")
    assert prompt_file.read(path).columns == {"prompt": ["x;y"], "a;b": ["z"]}
    path.write_text('"prompt, en";a\nx,y;z\n')
    assert prompt_file.read(path).columns == {"prompt, en": ["x,y"], "a": ["z"]}
    path.write_text('"a;b"\nx;y\n')
    assert prompt_file.read(path).columns == {"a;b": ["x;y"]}
    (tmp_path / "p.tsv").write_text("a;b\tc\nx;y\tz\n")
    assert prompt_file.read(tmp_path / "p.tsv").columns == {"a;b": ["x;y"], "c": ["z"]}


@pytest.mark.parametrize(
    ("data", "why", "remedy"),
    [
        (b"", "is empty", "its first line must name the columns"),
        (b"\n \n", "is empty", "its first line must name the columns"),
        (b"sep=;\n", "is empty", "its first line must name the columns"),
        ("prompt\na\n".encode("utf-16"), "is UTF-16", "iconv -f UTF-16 -t UTF-8 < '"),
        (b"prompt\na\n\xe9\n", "line 3, is not UTF-8", "iconv -f WINDOWS-1252 -t UTF-8 < '"),
        (b'prompt\na\n"b', "row 1, from 0: unexpected end", "check the quotes"),
        (b"PK\x03\x04\x14", "is a ZIP archive, as torch.save and office programs", "as CSV UTF-8"),
        (b"PAR1\x15", "is a Parquet file", ".parquet"),
        (gzip.compress(b"prompt\na\n", mtime=0), "is a gzip file", ".csv.gz"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<p>a,b\n", "a web page", "download the file itself"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_a_remedy(tmp_path, data, why, remedy):
    path = tmp_path / "my prompts.csv"
    path.write_bytes(data)
    with pytest.raises(errors.DataError) as refusal:
        prompt_file.read(path)
    assert why in refusal.value.message and remedy in refusal.value.hint


def test_json_is_read_however_it_is_laid_out(tmp_path):
    path = tmp_path / "p.json"
    row = {"prompt": "The", "answer": "a"}
    for data in (json.dumps(row), json.dumps(row, indent=1), json.dumps([row], indent=1)):
        path.write_text(data)
        assert prompt_file.read(path).columns == {"prompt": ["The"], "answer": ["a"]}
    for data in ('["a", "b"]', '"a"', "null"):
        path.write_text(data)
        with pytest.raises(errors.DataError, match="row 0, from 0: row is not an object"):
            prompt_file.read(path)
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    assert prompt_file.read(path).bad == {1: "row is not UTF-8"}
    path.write_bytes("\ufeff{}".encode("utf-16-le"))
    with pytest.raises(errors.DataError, match="is UTF-16"):
        prompt_file.read(path)


def test_a_key_that_an_object_names_twice_is_not_chosen_from(tmp_path):
    path = lines(tmp_path / "p.jsonl", '{"prompt": "a", "prompt": "b"}\n', {"prompt": "c"})
    table = prompt_file.read(path)
    assert table.bad == {0: "row holds an object that names a key twice"}
    assert table.columns["prompt"] == [None, "c"]
    (tmp_path / "p.json").write_text('[{"prompt": {"a": 1, "a": 2}}]')
    with pytest.raises(errors.DataError, match="names a key twice"):
        prompt_file.read(tmp_path / "p.json")


def test_prompts_come_from_a_pipe(tmp_path):
    path = tmp_path / "p.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text("prompt;answer\nThe;city\n"))
    writer.start()
    assert prompt_file.read(path).columns == {"prompt": ["The"], "answer": ["city"]}
    writer.join(60)


def test_names_in_hints_can_be_pasted_into_a_shell(tiny, tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text('"my question",a;b,plain\nThe,x,y\n')
    said = refused(capsys, 2, "prompts", path, "--model", tiny)
    assert "the file has: 'my question', 'a;b', plain" in said
    assert run(tiny, path, None, "--prompt-column", "my question") == 0
    said = capsys.readouterr().out
    assert "no answers" in said and "other columns: 'a;b', plain\n" in said


def test_padding_is_not_missing_and_prompts_that_are_not_read_do_not_count(tiny, tmp_path, capsys):
    rows = [("The", ["a", "b", "c"]), ("The", ["a"]), ("", ["x", "y"]), ("The", []), ("A", [" "])]
    found = [{"prompt": prompt, "answer": answer} for prompt, answer in rows]
    assert run(tiny, lines(tmp_path / "p.jsonl", *found)) == 0
    said = capsys.readouterr()
    assert "5 are one token, 4 got a leading space, 1 are missing\n" in said.out
    assert "1 row: answer is missing: answer; the first is row 3" in said.err


@pytest.mark.parametrize(
    ("answer", "before", "auto"),
    [
        ("北京", "中国的首都是", False),
        ("北京", "The capital of China is", False),
        ("Beijing", "中国的首都是", False),
        ("56", "中国的民族有", False),
        ("56", "回答:", True),
        ("56", "回答\uff1a", False),
        ("とうきょう", "The capital is", False),
        ("กรุงเทพ", "The capital is", False),
        ("서울", "수도는", True),
        ("Москва", "Столица -- город", True),
        ("القاهرة", "عاصمة مصر هي", True),
        ("Paris", "The capital is", True),
    ],
)
def test_scripts_without_spaces_get_none(answer, before, auto):
    assert spacing.begins_with_space(answer, before, "auto") == auto
    assert spacing.begins_with_space(answer, before, "always")


def test_the_table_says_which_answers_got_a_space(tiny, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,answer\n中国的首都是,北京\nThe capital is,Paris\n")
    out = tmp_path / "o.csv"
    assert run(tiny, path, out) == 0
    first, second = rows_of(out)
    assert first["text_answer"] == "北京" and second["text_answer"] == " Paris"
    # Part of a character, as run exports spell it.
    assert first["token"] == r"\xaf" and text.unescape(first["token"]) == b"\xaf"
    parquet = tmp_path / "o.parquet"
    assert run(tiny, path, parquet) == 0
    assert rows_of(parquet)[0]["token"] == r"\xaf"


def table_of(n_clusters, tiny, **answers):
    model = jaxlens.load_model(tiny)
    groups = [number % n_clusters for number in range(24)]
    return jaxlens.read_prompts(
        model, [[5, 6]] * 24, answers or {"a": 7}, metadata={"kind": groups}, top_k=1, layers=[-1]
    )


def test_it_is_said_why_there_is_no_interval(tiny):
    assert table_of(3, tiny).basis("kind") == (
        "no intervals: there are only 3 clusters by kind, and 10 are needed"
    )
    assert table_of(1, tiny).basis("kind").startswith("no intervals: there are only 1 cluster by")
    enough = table_of(12, tiny)
    assert (
        enough.basis("kind")
        == "intervals: 95 %, Wilson's with the design effect of clusters by kind"
    )
    assert np.isfinite(enough.summary("kind")["low"]).all()
    mixed = table_of(12, tiny, a=7, b=[8] * 2 + [None] * 22)
    assert "none where there are too few of them (b has 2); 10 are needed" in mixed.basis("kind")
    assert "taken as independent" in mixed.basis()
    with pytest.raises(errors.ConfigError, match="no column 'other'"):
        mixed.basis("other")


def test_the_column_of_clusters_is_kept_and_looked_for_first(tiny, tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text("prompt,answer,kind,more\nThe,a,x,y\n")
    out = tmp_path / "o.csv"
    assert run(tiny, path, out, "--cluster", "kind", "--metadata", "more") == 0
    assert rows_of(out)[0]["kind"] == "x"
    assert "there are only 1 cluster by kind" in capsys.readouterr().out
    said = refused(capsys, 2, "prompts", path, "--model", tmp_path / "none", "--cluster", "none")
    assert "no column 'none'" in said


def test_a_layer_that_is_named_twice_is_read_once(tiny, tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text("prompt,answer\nThe,a\n")
    assert run_cli("prompts", path, "--model", tiny, "--layers", "0", "0", "-3", "h.1") == 0
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed[2:5] == ["layer", "input", "h.1"]


@pytest.mark.parametrize("name", ["o.csv", "o.json", "o.parquet", "o"])
def test_a_pipe_is_written_to(tiny, tmp_path, name):
    path, out = lines(tmp_path / "p.jsonl", {"prompt": "The", "answer": "a"}), tmp_path / name
    os.mkfifo(out)
    found = []
    reader = threading.Thread(target=lambda: found.append(out.read_bytes()))
    reader.start()
    assert run(tiny, path, out) == 0
    reader.join(60)
    copy = tmp_path / f"copy{out.suffix or '.csv'}"
    copy.write_bytes(found[0])
    (row,) = rows_of(copy)
    assert row["text"] == "The" and out.is_fifo()


def test_standard_output_gets_the_table_alone(tiny, tmp_path, capfd):
    path = lines(tmp_path / "p.jsonl", {"prompt": "The", "answer": "a"})
    assert run(tiny, path, "/dev/stdout") == 0
    printed = capfd.readouterr()
    (row,) = csv.DictReader(printed.out.splitlines())
    assert row["text_answer"] == " a" and "1 of 1 prompts read" in printed.err
    assert run(tiny, path, "/dev/null") == 0
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def test_a_full_device_is_an_error_of_storage(tiny, tmp_path, capsys):
    path = lines(tmp_path / "p.jsonl", {"prompt": "The", "answer": "a"})
    words = ("prompts", path, "--model", tiny, "--layers", "-1", "--out")
    assert "No space left" in refused(capsys, 74, *words, "/dev/full")


@pytest.mark.parametrize("option", ["--out", "--figure"])
def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path, option, capsys):
    path = lines(tmp_path / "p.jsonl", {"prompt": "The"})
    suffix = "png" if option == "--figure" else "csv"
    words = ("prompts", path, "--model", tmp_path / "no model", option)
    said = refused(capsys, 74, *words, tmp_path / "my folder" / f"o.{suffix}")
    assert "its folder does not exist" in said and f"mkdir -p '{tmp_path}/my folder'" in said
    (tmp_path / f"d.{suffix}").mkdir()
    assert "is a directory" in refused(capsys, 2, *words, tmp_path / f"d.{suffix}")


def test_a_folder_that_is_read_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(errors.StorageError, match="read-only"):
        outputs.require(tmp_path / "o.csv")


def test_columns_of_arrow_s_types_stay_what_they_are(tmp_path):
    def column(*values):
        found = np.empty(len(values), object)
        found[:] = values
        return found, None

    columns = {
        "date": column(pandas.Timestamp("2020-01-02").date(), None),
        "span": column(pandas.Timedelta("1s").to_pytimedelta(), None),
        "truth": column(True, None),
        "map": column([("k", 1)], None),
        "list": column([1, 2], [3]),
        "\ud800": column("a", None),
    }
    for suffix in OUTPUTS:
        assert records.write(tmp_path / f"o.{suffix}", columns, {}) == 2
    (first, _) = rows_of(tmp_path / "o.csv")
    assert first["date"] == "2020-01-02" and first["truth"] == "true"
    assert first["span"] == "0:00:01" and first["list"] == "[1, 2]"
    (first, _) = rows_of(tmp_path / "o.parquet")
    assert first["truth"] is True and first["list"] == [1, 2] and first[r"\ud800"] == "a"


def test_the_figure_says_how_many_prompts_and_reaches_100_per_cent(tiny):
    table = table_of(12, tiny, right=7, wrong=[8] * 5 + [None] * 19)
    plot = figure.plot(table.summary(), "about", table.basis())
    assert [curve.name for curve in plot.panels[0].curves] == ["right (n = 24)", "wrong (n = 5)"]
    from jaxlens.view.figures import svg

    share, rank = svg.figure(plot).axes
    ticks = dict(zip(share.get_yticks().tolist(), share.get_yticklabels(), strict=True))
    assert ticks[1.0].get_text() == "100 %" and share.get_ylim()[1] > 1
    assert rank.get_ylim()[1] < 1 < rank.get_ylim()[0]
    odd = figure.plot(table_of(12, tiny, **{"a\x1b\n": 7, "b" * 99: 8}).summary(), "a\tb", "")
    labels = [curve.name for curve in odd.panels[0].curves]
    assert all(label.isprintable() and len(label) < 60 for label in labels)
    assert odd.title == "a⇥b"
    alone = figure.plot(table_of(12, tiny).summary("kind"), "about", "")
    assert alone.panels[0].title.endswith(" (n = 24)") and alone.title == "about; answer: a"
    (axes, _) = svg.figure(alone).axes
    (bar,) = (drawn for drawn in axes.collections if drawn.get_gid() == "band:a (n = 24)")
    low, high = bar.get_segments()[0][:, 1]
    assert low == pytest.approx(alone.panels[0].curves[0].low[0]) and low < high


def test_lines_of_cells_are_detached_from_a_stream_that_others_own(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt\na\n")
    with contextlib.closing(open(path, "rb")) as stream:
        assert list(cells._lines(stream, "p", limits.Count("p"))) == ["prompt\n", "a\n"]
        assert not stream.closed
