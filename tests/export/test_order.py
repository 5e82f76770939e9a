"""Exports through the real command line, read back by other tools."""

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from store import example
from sweeps import refused, run_cli, script_with_small_files

import jaxlens
from jaxlens import schema
from jaxlens.export import selection, tables, text
from jaxlens.store import layout, open_shards, reader, summary
from jaxlens.tally import bins as binning
from jaxlens.tally import definitions, sampling

SHARDS, ROWS = 4, 24
TOTAL = SHARDS * ROWS


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run with missing values of every kind, two best tokens, and odd names."""
    made = tmp_path_factory.mktemp("runs") / "example"
    example.write_run(made, SHARDS, ROWS, "full")
    example.publish_index(made, example.index_arrays(SHARDS, ROWS), TOTAL)
    return made


def missing(name, values):
    """Where there is no value, from the definitions of the schema."""
    quantity = schema.QUANTITIES[name]
    if quantity.kind == "float":
        return np.isnan(values)
    if name.startswith("ties_"):  # 0 is a number of ties
        return np.zeros(len(values), bool)
    codes = {"prev_distance": 0, "piece": 255, "foreign_fold": 255}
    return values == {"rank": 0, "id": -1}.get(quantity.kind, codes.get(name))


def expected_columns(run, name, layout, layers):
    """Heading and values of each column of a quantity."""
    values, names = run[name][:], run.layer_names
    if values.ndim == 1:
        each = len(layers) if layout == "long" else 1
        return {name: np.repeat(values, each)}
    places = values.shape[2] if values.ndim == 3 else 1
    values = values.reshape(len(values), len(names), places)
    headings = [name if places == 1 else f"{name}.{place + 1}" for place in range(places)]
    if layout == "long":
        return {h: values[:, layers, place].reshape(-1) for place, h in enumerate(headings)}
    return {
        f"{heading}.{names[layer]}": values[:, layer, place]
        for layer in layers
        for place, heading in enumerate(headings)
    }


def check_table(table, run, layout, layers, names=None):
    """Every value of a table is that of the run; what is missing there is null here."""
    headings = []
    for name in names or run.names:
        for heading, values in expected_columns(run, name, layout, layers).items():
            headings.append(heading)
            column = table.column(heading).combine_chunks()
            gone = missing(name, values)
            np.testing.assert_array_equal(column.is_null().to_numpy(False), gone, heading)
            given = column.filter(column.is_valid()).to_numpy()
            np.testing.assert_array_equal(given, values[~gone], heading)
    assert [name for name in table.column_names if name in set(headings)] == headings
    kinds = {str(kind) for kind in table.schema.types}
    assert kinds == {"int64", "string", "int32", "float"}


def expected_texts(run):
    documents = run.corpus.documents
    ids = [text.escape(documents.id[i]) for i in documents.of(np.arange(run.n_rows))]
    spelled = [text.escape(run.corpus.token_strings[i]) or None for i in run.corpus.tokens()]
    return ids, spelled


@pytest.mark.parametrize("which", ["swept", "out"])
@pytest.mark.parametrize("how", ["wide", "long"])
def test_parquet_has_every_value_of_the_run(request, tmp_path, which, how):
    source, path = request.getfixturevalue(which), tmp_path / "rows.parquet"
    assert run_cli("export", source, "--to", "parquet", "--out", path, "--layout", how) == 0
    table = pa.parquet.read_table(path)
    with reader.open_run(source) as run:
        n_layers = len(run.layer_names)
        each = n_layers if how == "long" else 1
        check_table(table, run, how, list(range(n_layers)))
        rows = np.repeat(np.arange(run.n_rows), each)
        np.testing.assert_array_equal(table["row"].to_numpy(), rows)
        ids, spelled = expected_texts(run)
        assert table["document_id"].to_pylist() == [ids[row] for row in rows]
        assert table["token_string"].to_pylist() == [spelled[row] for row in rows]
        if how == "long":
            layers = np.tile(np.arange(n_layers), run.n_rows)
            np.testing.assert_array_equal(table["layer"].to_numpy(), layers)
            assert table["layer_name"].to_pylist() == [run.layer_names[n] for n in layers]


def test_parquet_says_what_its_columns_are(out, tmp_path):
    path = tmp_path / "rows.parquet"
    assert run_cli("export", out, "--to", "parquet", "--out", path) == 0
    file = pa.parquet.ParquetFile(path, page_checksum_verification=True)
    file.read()
    about = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    assert about["jaxlens.version"] == jaxlens.__version__
    assert about["jaxlens.spec_hash"] == layout.read_spec(out).hash
    columns = json.loads(about["jaxlens.columns"])
    assert list(columns) == file.schema_arrow.names
    assert columns["kl_final.h.2"]["units"] == "nat"
    assert columns["top_id.2.h.0"]["meaning"].endswith("lowest id; number 2; layer 1")
    field = file.schema_arrow.field("kl_final.h.2")
    assert field.metadata[b"units"] == b"nat"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_csv_has_every_value_of_the_run(swept, tmp_path, name):
    path = tmp_path / name
    assert run_cli("export", swept, "--to", "csv", "--out", path) == 0
    raw = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    lines = list(csv.reader(raw.decode().splitlines()))
    assert b"\r" not in raw and b"\0" not in raw
    with reader.open_run(swept) as run:
        headings = lines[0]
        cells = np.array(lines[1:], dtype=object)
        assert cells.shape == (run.n_rows, len(headings))
        for quantity in run.names:
            layers = list(range(len(run.layer_names)))
            for heading, values in expected_columns(run, quantity, "wide", layers).items():
                found, gone = cells[:, headings.index(heading)], missing(quantity, values)
                np.testing.assert_array_equal(found == "", gone)
                np.testing.assert_array_equal(found[~gone].astype(values.dtype), values[~gone])


def test_csv_hides_nothing_in_texts(out, tmp_path):
    path = tmp_path / "rows.csv"
    assert run_cli("export", out, "--to", "csv", "--out", path, "--quantities", "rank_input") == 0
    frame = pandas.read_csv(path, keep_default_na=False)
    ids = [text.escape(name, spreadsheet=True) for name in example.DOCUMENTS]
    assert list(dict.fromkeys(frame["document_id"])) == ids
    assert ids[2].startswith(r"\x3d") and ids[3] == r"la\nst"
    assert not frame["token_string"].str.contains("\x1b|\n|\u2028").any()
    with reader.open_run(out) as run:
        spelled = [text.escape(s, True) for s in run.corpus.token_strings]
        assert list(frame["token_string"]) == [spelled[i] for i in run.corpus.tokens()]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.csv.gz", "rows.h5"])
def test_the_same_order_gives_the_same_bytes(out, tmp_path, name):
    to = {"parquet": "parquet", "h5": "hdf5"}.get(name.rpartition(".")[2], "csv")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert run_cli("export", out, "--to", to, "--out", tmp_path / folder / name) == 0
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_hdf5_is_what_the_shards_hold(swept, tmp_path):
    path = tmp_path / "rows.h5"
    assert run_cli("export", swept, "--to", "hdf5", "--out", path) == 0
    with xarray.open_dataset(path) as one, xarray.open_dataset(swept / "index.h5") as index:
        for name in index.data_vars:
            xarray.testing.assert_identical(one[name].load(), index[name].load())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_selection_in_groups_of_any_size_has_exactly_those_rows(out, data):
    with reader.open_run(out) as run, pytest.MonkeyPatch.context() as patch:
        names = data.draw(st.lists(st.sampled_from(run.names), min_size=1, unique=True))
        layers = data.draw(st.lists(st.integers(-4, 3), min_size=1, unique_by=lambda n: n % 4))
        start = data.draw(st.integers(0, TOTAL - 1))
        stop = data.draw(st.integers(start + 1, TOTAL))
        how = data.draw(st.sampled_from(["wide", "long"]))
        records = data.draw(st.integers(1, 2 * TOTAL))
        patch.setattr(tables, "MAX_RECORDS", records)
        spelled = [str(n) for n in layers]
        chosen = selection.select(run, names, spelled, start, stop, how, texts=True)
        form = tables.arrow_schema(selection.fields(run, chosen), {})
        found = list(tables.tables(run, chosen, form, tables.texts(run, False)))
        assert all(table.num_rows == records for table in found[:-1])
        table = pa.concat_tables(found)
        each = len(layers) if how == "long" else 1
        rows = np.repeat(np.arange(start, stop), each)
        np.testing.assert_array_equal(table["row"].to_numpy(), rows)
        ids, strings = expected_texts(run)
        assert table["document_id"].to_pylist() == [ids[row] for row in rows]
        assert table["token_string"].to_pylist() == [strings[row] for row in rows]
        for name in names:
            columns = expected_columns(run, name, how, [n % 4 for n in layers])
            for heading, values in columns.items():
                values = values[start * each : stop * each]
                filled = pa.array(values.tolist(), mask=missing(name, values))
                assert table[heading].to_pylist() == filled.to_pylist()


def test_layers_go_by_number_from_either_end_or_by_name(out, tmp_path):
    path = tmp_path / "rows.parquet"
    how = ("--quantities", "entropy", "--layers", "-1", "h.0", "0", "input", "--start", "3")
    assert run_cli("export", out, "--to", "parquet", "--out", path, *how, "--stop", "9") == 0
    table = pa.parquet.read_table(path)
    texts = ["row", "document_id", "token_string"]
    assert table.column_names == [*texts, "entropy.h.2", "entropy.h.0", "entropy.input"]
    assert table["row"].to_pylist() == list(range(3, 9))


def test_one_best_token_has_no_number(swept, tmp_path):
    path = tmp_path / "rows.parquet"
    how = ("--quantities", "top_id", "--layers", "-1")
    assert run_cli("export", swept, "--to", "parquet", "--out", path, *how) == 0
    assert pa.parquet.read_schema(path).names[3:] == ["top_id.h.1"]


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_tallies_are_tables_of_all_cells_that_are_not_zero(swept, tmp_path, to):
    folder = tmp_path / "totals"
    assert run_cli("export", swept, "--to", to, "--out", folder, "--tallies") == 0
    with reader.open_run(swept) as run:
        assert {path.name for path in folder.iterdir()} == {f"{name}.{to}" for name in run.tally}
        for name, found in run.tally.items():
            path = folder / f"{name}.{to}"
            frame = pandas.read_parquet(path) if to == "parquet" else pandas.read_csv(path)
            rebuilt = np.zeros_like(found)
            labels = summary.axis_labels(run.tally)
            places = []
            for axis in definitions.BY_NAME[name].axes:
                column = frame["token" if axis == "vocab" else axis]
                labelled = axis in labels
                places.append([labels[axis].index(v) for v in column] if labelled else column)
            rebuilt[tuple(np.array(place, int) for place in places)] = frame["value"]
            np.testing.assert_array_equal(rebuilt, found)
            assert (frame["value"] != 0).all()


def test_sampled_rows_are_tables_with_a_column_for_each_field(studied, tmp_path):
    out, folder = studied / "trained", tmp_path / "totals"
    assert run_cli("export", out, "--to", "parquet", "--out", folder, "--tallies") == 0
    with reader.open_run(out) as run:
        for name in ("copies", "controls", "reservoir"):
            frame = pandas.read_parquet(folder / f"{name}.parquet")
            kept = run.tally[name][run.tally[name][:, 0] != sampling.NO_KEY]
            assert len(kept) > 0
            assert tuple(frame.columns) == sampling.fields(len(run.layer_names))
            np.testing.assert_array_equal(frame.to_numpy(), kept)


def test_names_and_edges_stand_beside_the_indices_of_tallies(swept, tmp_path):
    folder = tmp_path / "totals"
    assert run_cli("export", swept, "--to", "parquet", "--out", folder, "--tallies") == 0
    bins = pandas.read_parquet(folder / "ln_rank_histogram.parquet")
    np.testing.assert_array_equal(bins.ln_rank_low, binning.LN_RANK_EDGES[bins.ln_rank_bin])
    np.testing.assert_array_equal(bins.ln_rank_high, binning.LN_RANK_EDGES[bins.ln_rank_bin + 1])
    assert set(bins.layer_name) == {"input", "h.0", "h.1"}
    with reader.open_run(swept) as run:
        counts = pandas.read_parquet(folder / "token_count.parquet").set_index("token")
        for token, string in counts.token_string.items():
            assert text.unescape(string) == run.corpus.token_strings[token]
    value = pa.parquet.read_schema(folder / "sum.parquet").field("value")
    assert value.type == pa.int64() and value.metadata[b"units"] == b"2**-16"


def test_a_run_of_tallies_alone_exports_them_and_refuses_rows(tmp_path, capsys):
    example.write_run(tmp_path / "run", 2, 8, "none")
    said = refused(capsys, 2, "export", tmp_path / "run", "--to", "csv")
    assert "--tallies" in said
    assert run_cli("export", tmp_path / "run", "--to", "csv", "--tallies") == 65  # odd index
    shutil.rmtree(tmp_path / "run" / "tokens")
    assert run_cli("export", tmp_path / "run", "--to", "csv", "--tallies") == 0
    assert (tmp_path / "run-tallies" / "token_count.csv").read_text().startswith('"token","value"')


def test_without_a_token_file_there_are_no_texts(out, tmp_path, capsys):
    run = shutil.copytree(out, tmp_path / "run")
    shutil.rmtree(run / "tokens")
    assert run_cli("export", run, "--to", "parquet", "--quantities", "token", "piece") == 0
    assert "TOKENS.json is missing" in capsys.readouterr().err
    table = pa.parquet.read_table(tmp_path / "run.parquet")
    assert table.column_names == ["row", "token", "piece"]


@pytest.mark.parametrize("to", ["parquet", "csv", "hdf5"])
def test_a_damaged_shard_is_named_and_leaves_no_file(out, tmp_path, capsys, to):
    run = shutil.copytree(out, tmp_path / "run")
    example.damage(run, 2, 900)
    assert "part-00002.h5" in refused(capsys, 65, "export", run, "--to", to)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_token_index_is_named(out, tmp_path, capsys):
    run = shutil.copytree(out, tmp_path / "run")
    os.truncate(run / "tokens" / "index.h5", 1000)
    assert "index.h5" in refused(capsys, 65, "export", run, "--to", "csv")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("code", "named", "how"),
    [
        (2, "rank_inptu", ("--to", "csv", "--quantities", "rank_inptu")),
        (2, "layer 4", ("--to", "csv", "--layers", "4")),
        (2, "layer h.9", ("--to", "csv", "--layers", "h.9")),
        (2, "rows 96 to 96", ("--to", "csv", "--start", "96")),
        (2, "rows 0 to 97", ("--to", "csv", "--stop", "97")),
        (2, "rows -1", ("--to", "csv", "--start", "-1")),
        (2, "layout", ("--to", "hdf5", "--layout", "long")),
        (2, "summary.h5", ("--to", "hdf5", "--tallies")),
        (2, "--tallies", ("--to", "csv", "--tallies", "--start", "0")),
        (2, "json", ("--to", "json")),
        (2, "rows.csv does not name a file for parquet", ("--to", "parquet", "--out", "rows.csv")),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    out, tmp_path, capsys, monkeypatch, code, named, how
):
    monkeypatch.chdir(tmp_path)
    assert named in refused(capsys, code, "export", out, *how)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_into_the_run_or_over_a_file(out, tmp_path, capsys, monkeypatch):
    before = sorted(out.rglob("*"))
    said = refused(capsys, 2, "export", out, "--to", "csv", "--out", out / "rows.csv")
    assert "is inside the run" in said
    (tmp_path / "link").symlink_to(out)
    refused(capsys, 2, "export", out, "--to", "csv", "--out", tmp_path / "link" / "rows.csv")
    monkeypatch.chdir(out)
    refused(capsys, 2, "export", ".", "--to", "csv", "--out", "shards/rows.csv")
    assert sorted(out.rglob("*")) == before
    (tmp_path / "rows.csv").write_text("mine")
    said = refused(capsys, 2, "export", out, "--to", "csv", "--out", tmp_path / "rows.csv")
    assert "exists" in said
    assert (tmp_path / "rows.csv").read_text() == "mine"


def test_a_target_that_cannot_be_written_exits_with_74(out, tmp_path, capsys):
    for to, name in (("csv", "rows.csv"), ("parquet", "rows.parquet"), ("hdf5", "rows.h5")):
        refused(capsys, 74, "export", out, "--to", to, "--out", tmp_path / "none" / name)
    (tmp_path / "file").write_text("mine")
    how = ("--to", "csv", "--tallies", "--out", tmp_path / "file" / "totals")
    refused(capsys, 74, "export", out, *how)


LONG_HOWS = (("csv",), ("parquet", "--tallies"), ("csv", "--tallies"))


@pytest.mark.parametrize(
    "how",
    [("parquet",), ("hdf5",), *(pytest.param(how, marks=pytest.mark.long) for how in LONG_HOWS)],
)
def test_a_full_disk_is_an_error_line_and_leaves_nothing(out, tmp_path, how):
    run = shutil.copytree(out, tmp_path / "run")
    command = [sys.executable, "-c", script_with_small_files(2500), "export", run, "--to", *how]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_pyarrow_that_is_not_installed_is_named_with_its_extra(out, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for how in ((), ("--tallies",)):
        said = refused(capsys, 66, "export", out, "--to", "csv", "--out", tmp_path / "a.csv", *how)
        assert "pyarrow" in said and "[study]" in said
    assert run_cli("export", out, "--to", "hdf5", "--out", tmp_path / "rows.h5") == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run whose rows take 34 MiB, 90 MiB as a table."""
    made = tmp_path_factory.mktemp("many") / "run"
    example.write_run(made, 24, 8192, "full")
    example.publish_index(made, example.index_arrays(24, 8192), 24 * 8192)
    return made


@pytest.mark.parametrize(
    ("to", "end"),
    [
        pytest.param("parquet", "parquet", marks=pytest.mark.long),
        pytest.param("csv", "csv", marks=pytest.mark.long),
        ("hdf5", "h5"),
    ],
)
def test_memory_does_not_grow_with_the_rows(many, tmp_path, to, end):
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from jaxlens.export import order, tables\n"
        "from jaxlens.store import single\n"
        "tables.GROUP_BYTES = single.BATCH_BYTES = 1 << 20\n"
        "run, to, out, end = sys.argv[1:]\n"
        "peaks = []\n"
        "for stop in (2 * 8192, None):\n"
        "    target = Path(out) / f'{stop}.{end}'\n"
        "    order.export(run, order.Order(to=to, out=target, stop=stop))\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(*peaks)\n"
    )
    command = [sys.executable, "-c", script, str(many), to, str(tmp_path), end]
    first, last = map(int, subprocess.check_output(command, text=True).split())
    assert last - first < 16 << 10, (first, last)  # KiB; all rows are 34 MiB, their table 90
    assert (tmp_path / f"None.{end}").stat().st_size > 16 << 20


def test_an_export_calls_no_jax(out, tmp_path):
    script = (
        "import sys; from jaxlens.cli import main as cli\n"
        "cli.main(sys.argv[1:])\n"
        "sys.exit('jax' in sys.modules)"
    )
    how = ["export", str(out), "--to", "parquet", "--out", str(tmp_path / "rows.parquet")]
    assert subprocess.run([sys.executable, "-c", script, *how], check=False).returncode == 0


def test_an_interrupted_export_leaves_nothing(out, tmp_path, monkeypatch):
    real, calls = open_shards.OpenShards.read, []

    def read(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(open_shards.OpenShards, "read", read)
    for to in ("parquet", "csv", "hdf5"):
        calls.clear()
        end = "h5" if to == "hdf5" else to
        assert run_cli("export", out, "--to", to, "--out", tmp_path / f"rows.{end}") == 130
    assert list(tmp_path.iterdir()) == []


def test_pandas_keeps_the_text_na_with_the_options_of_the_documentation(out, tmp_path):
    path = tmp_path / "rows.csv"
    assert run_cli("export", out, "--to", "csv", "--out", path) == 0
    frame = pandas.read_csv(path, keep_default_na=False, na_values=[""])
    with reader.open_run(out) as run:
        values = run["rank_copy"][:, 2]
        assert list(frame["rank_copy.h.1"].isna()) == list(values == 0)
        assert (frame["rank_copy.h.1"].dropna() == values[values != 0]).all()
