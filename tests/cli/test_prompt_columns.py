"""`jaxlens prompts` through the real command line, and the files that it reads and writes."""

import csv
import gzip
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
from sweeps import refused, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.api.prompts import prompt_file

ROWS = [
    {"prompt": "The people of the", "answer": "city", "wrong": "banana", "kind": "a"},
    {"prompt": 'He said "', "answer": "yes", "wrong": "no", "kind": "b, c"},
    {"prompt": "a\nline", "answer": "=1", "wrong": "", "kind": ""},
]


def write(path, rows=ROWS):
    """A file of rows in the format of its suffix."""
    suffix = path.name.partition(".")[2]
    if suffix == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif suffix.startswith("json"):
        lines = [json.dumps(row) for row in rows]
        path.write_text(f"[{','.join(lines)}]" if suffix == "json" else "\n".join(lines) + "\n")
    else:
        opened = gzip.open if suffix.endswith("gz") else open
        with opened(path, "wt", newline="") as stream:
            tab = "\t" if suffix == "tsv" else ","
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=tab)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "jsonl", "json", "parquet"])
def test_every_format_holds_the_same_rows(tmp_path, suffix):
    table = prompt_file.read(write(tmp_path / f"p.{suffix}"))
    assert table.names == tuple(ROWS[0]) and not table.bad and table.n_rows == 3
    for name in table.names:
        assert list(table.column(name)) == [row[name] for row in ROWS]


def test_a_mark_at_the_start_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,answer\r\na,b\r\n")
    assert prompt_file.read(path).names == ("prompt", "answer")


def test_rows_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('prompt,answer\na,b\nc\nd,e,f\n\ng,"h\nh"\n')
    table = prompt_file.read(path)
    assert table.columns["prompt"] == ["a", None, None, "g"] and set(table.bad) == {1, 2}
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": \n\n[1]\n{"answer": "b"}\n')
    table = prompt_file.read(path)
    assert table.columns["prompt"] == ["a", None, None, None]
    assert table.bad == {1: "row is not JSON", 2: "row is not an object"}


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("p.txt", b"a", errors.ConfigError),
        ("p.parquet.gz", b"a", errors.ConfigError),
        ("p.csv", b"", errors.DataError),
        ("p.csv", b"a,a\n1,2\n", errors.DataError),
        ("p.csv", b"prompt\n", errors.DataError),
        ("p.csv", b"prompt\n\xff\n", errors.DataError),
        ("p.csv", b'prompt\n"a', errors.DataError),
        ("p.json", b"[1,", errors.DataError),
        ("p.json", b"[" * 100_000, errors.DataError),
        ("p.jsonl", b"\n", errors.DataError),
        ("p.parquet", b"PAR1 nothing PAR1", errors.DataError),
        ("p.csv.gz", b"nothing", errors.DataError),
        ("none.csv", None, errors.MissingError),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, data, kind):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(kind):
        prompt_file.read(tmp_path / name)


BAD = [
    *ROWS,
    {"prompt": "", "answer": "x", "wrong": "y", "kind": "d"},
    {"prompt": "word " * 40, "answer": "x", "wrong": "y", "kind": "d"},
    {"prompt": "It is", "answer": "", "wrong": "y", "kind": "d"},
]


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """What one command prints and writes, in each format."""
    folder = tmp_path_factory.mktemp("prompts")
    path = write(folder / "p.csv", BAD)
    for suffix in ("parquet", "csv", "json"):
        asked = ("--answer-column", "answer", "wrong", "--out", folder / f"out.{suffix}")
        figure = ("--figure", folder / "p.png") if suffix == "json" else ()
        assert run_cli("prompts", path, "--model", tiny, "--top-k", 2, *asked, *figure) == 0
    return folder


def test_the_files_hold_what_read_prompts_reads(tiny, done):
    model = jaxlens.load_model(tiny)
    good = [0, 1, 2, 5]
    answers = {name: [BAD[n][name] or None for n in good] for name in ("answer", "wrong")}
    table = jaxlens.read_prompts(model, [BAD[n]["prompt"] for n in good], answers, top_k=2)
    frame = pandas.read_parquet(done / "out.parquet")
    assert frame["prompt"].tolist() == np.repeat(good, 3).tolist()
    assert frame["kind"].tolist() == [BAD[n]["kind"] for n in good for _ in range(3)]
    ours = table.to_pandas()
    for name in ("rank_answer", "rank_wrong", "first_top_answer"):
        theirs = frame[name].to_numpy(np.float64, na_value=np.nan)
        np.testing.assert_array_equal(theirs, ours[name].to_numpy(np.float64, na_value=np.nan))
    for name in ("p_answer", "logp_wrong", "logit_difference", "entropy", "top_p.2"):
        np.testing.assert_allclose(frame[name], ours[name], rtol=1e-4, atol=1e-5)
    spread = pandas.read_csv(done / "out.csv")
    np.testing.assert_allclose(spread["logp_answer"], frame["logp_answer"], rtol=1e-6)
    assert spread["token_answer"][6].startswith("\\x3d")  # no cell begins a formula
    assert frame["token_answer"][6].startswith("=")


def test_json_also_says_what_was_left_out_and_how_answers_were_taken(done):
    found = json.loads((done / "out.json").read_text())
    assert {(p["prompt"], p["what"]) for p in found["problems"]} == {
        (2, "answer is missing: wrong"),
        (3, "prompt is empty"),
        (4, "prompt is too long for the model"),
        (5, "answer is missing: answer"),
    }
    first, *_ = found["answers"]
    assert first["text"] == " city" and first["space_added"] and first["n_tokens"] >= 1
    assert len(found["records"]) == 4 * 3 and len(found["summary"]) == 2 * 3
    assert found["records"][6]["rank_wrong"] is None
    assert "independent" in found["basis"]
    assert (done / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_printed_and_what_was_left_out_is_counted(tiny, done, capsys):
    words = ("prompts", done / "p.csv", "--model", tiny, "--top-k", 2)
    assert run_cli(*words, "--answer-column", "answer", "wrong") == 0
    printed = capsys.readouterr()
    assert (
        "4 of 6 prompts read" in printed.out and "prompts are taken as independent" in printed.out
    )
    assert "wrong on top" in printed.out and "got a leading space" in printed.out
    assert "1 row: prompt is empty; the first is row 3, from 0" in printed.err
    assert "prompt is too long" in printed.err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--strict",), 65, "row 5: answer is missing: answer"),
        (("--prompt-column", "question"), 2, "no column 'question'"),
        (("--answer-column", "target"), 2, "no column 'target'"),
        (("--cluster", "none"), 2, "no column 'none'"),
        (("--out", "x.txt"), 2, "x.txt does not name a table"),
        (("--figure", "x.gif"), 2, "picture x.gif"),
        (("--layers", "h.9"), 2, "no layer 'h.9'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tiny, done, words, code, why, capsys):
    words = ("prompts", done / "p.csv", "--model", tiny, "--top-k", 2, *words)
    assert why in refused(capsys, code, *words)


def test_a_file_that_exists_is_not_replaced(tiny, done, capsys):
    words = ("prompts", done / "p.csv", "--model", tiny, "--out", done / "out.json")
    assert "exists" in refused(capsys, 2, *words)


def test_a_file_without_a_row_that_can_be_read_is_refused(tiny, tmp_path, capsys):
    path = write(tmp_path / "p.csv", [BAD[3]])
    words = ("prompts", write(tmp_path / "q.csv", [ROWS[0], BAD[3]]), "--model", tiny, "--strict")
    assert "prompt 1: prompt is empty" in refused(capsys, 65, *words)
    assert "none of 1 rows" in refused(capsys, 65, "prompts", path, "--model", tiny)


def test_lists_of_candidates_and_of_ids_come_from_json(tiny, tmp_path, capsys):
    rows = [{"text": [5, 6, 7], "answer": [" a", 12]}, {"text": "It is", "answer": [" b"]}]
    path = write(tmp_path / "p.jsonl", rows)
    out = tmp_path / "o.json"
    assert run_cli("prompts", path, "--model", tiny, "--top-k", 2, "--out", out) == 0
    assert "answer.2 on top" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [one["text"] for one in found["answers"]] == [" a", " 12", " b", None]
    assert found["difference"] == ["answer.1", "answer.2"]


def test_no_column_of_the_file_is_lost_and_headings_are_no_formulas(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('prompt,position_given,position,"=1+1"\nThe tea was,a,b,c\n')
    out = tmp_path / "out.csv"
    assert run_cli("prompts", path, "--layers", "-1", "--top-k", "1", "--out", out) == 0
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["position_given"] == "a" and row["position_given_given"] == "b"
    assert row[r"\x3d1+1"] == "c" and "=1+1" not in row
