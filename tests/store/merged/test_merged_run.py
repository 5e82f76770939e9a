"""Merged runs, read as one."""

import shutil

import numpy as np
import pytest
from store.merged import parts
from sweeps import run_cli

import jaxlens
from jaxlens import errors
from jaxlens.store import document_fields
from jaxlens.store.merged import merged_corpus, merged_run
from jaxlens.study import study

RUNS = ("study-a", "study-rest")


@pytest.fixture(scope="module")
def opened(merged):
    """The merged run, and its runs in its order."""
    runs = [jaxlens.open_run(merged / name) for name in parts.canonical(merged, RUNS)]
    with jaxlens.open_run(merged / "study") as run:
        yield run, runs


def joined(runs, name):
    """Rows of runs one after the other, read by themselves; documents number on."""
    found, documents = [], 0
    for run in runs:
        found.append(run[name][:] + (documents if name == "document" else 0))
        documents += len(run.corpus.documents)
    return np.concatenate(found)


def test_rows_are_those_of_the_runs_one_after_the_other(opened, monkeypatch):
    run, runs = opened
    monkeypatch.setattr(merged_run, "READ_ROWS", 700)  # of shards of a run, several at once
    assert run.n_rows == run.n_tokens == len(run) == sum(one.n_rows for one in runs)
    edge, chosen = runs[0].n_rows, [0, -1, 5, runs[0].n_rows, runs[0].n_rows - 1]
    for name in run.names:
        expected, column = joined(runs, name), run[name]
        assert (column.dtype, column.shape) == (runs[0][name].dtype, expected.shape)
        for rows in (slice(None), slice(edge - 3, edge + 3), slice(None, None, -7), chosen):
            np.testing.assert_array_equal(column[rows], expected[rows])
    np.testing.assert_array_equal(run["kl_final"][:, "h.0"], joined(runs, "kl_final")[:, 1])


def test_batches_and_tables_number_rows_and_documents_on(opened):
    run, runs = opened
    batches = list(run.batches(["token", "document", "rank_input"], rows=900))
    numbers = np.concatenate([batch["row"] for batch in batches])
    np.testing.assert_array_equal(numbers, np.arange(run.n_rows))
    for name in ("token", "document", "rank_input"):
        found = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(found, joined(runs, name))
    of_rows = run.corpus.documents.of(numbers)
    np.testing.assert_array_equal(of_rows, joined(runs, "document"))
    frame = run.to_pandas(["token"], runs[0].n_rows - 1, runs[0].n_rows + 1)
    assert frame["token"].tolist() == joined(runs, "token")[numbers][frame["row"]].tolist()
    data = run.to_xarray(["kl_final"])
    np.testing.assert_array_equal(data["kl_final"], joined(runs, "kl_final"))
    assert "Run" in repr(run) and "median rank" in run._repr_html_()


def test_corpora_follow_each_other(opened):
    run, runs = opened
    tokens = np.concatenate([one.corpus.tokens() for one in runs])
    edge = runs[0].n_tokens
    for start, stop in ((0, None), (edge - 4, edge + 4), (3, 3), (edge, -2), (-5, None)):
        np.testing.assert_array_equal(run.corpus.tokens(start, stop), tokens[start:stop])
    np.testing.assert_array_equal(tokens, run["token"][:])
    counted = np.bincount(tokens, minlength=4096)
    np.testing.assert_array_equal(run.corpus.token_counts.sum(0), counted)
    documents = run.documents()
    assert documents["n_tokens"].sum() == run.n_tokens and documents["first_row"][0] == 0
    assert len(documents["document"]) == run.spec["corpus"]["n_documents"]
    ids = [name for one in runs for name in one.documents()["document_id"]]
    assert documents["document_id"].tolist() == ids


def test_kept_fields_keep_their_values_and_kinds():
    columns = [[["x", 1], ["y", True]], [["y", 1.0], [None, "1"], ["x", 1]]]
    kept = []
    for rows in columns:
        builder = document_fields.Builder(("label", "number"))
        for row in rows:
            builder.add(row)
        kept.append(builder.finish())
    found = merged_corpus.joined_fields(kept)
    for place, name in enumerate(found.names):
        expected = [row[place] for rows in columns for row in rows]
        values = found.column(name).tolist()
        assert values == expected and list(map(type, values)) == list(map(type, expected))
    assert found.values[0] == ("x", "y")


def test_one_run_is_open_at_a_time(opened):
    run, _ = opened
    with run:
        run["token"][:]
        held = [len(one._shards) for one in run._opened._runs.values()]
        assert sorted(held) == [0, 1]
    assert [len(one._shards) for one in run._opened._runs.values()] == [0, 0]


def test_a_study_of_parts_is_that_of_the_whole_but_for_drawn_tokens(merged, parted):
    found, expected = (study.study(run) for run in (merged / "study", parted / "study-whole"))
    assert len(found.results) == len(expected.results)
    differing, equal = set(), 0
    for one, other in zip(found.results, expected.results, strict=True):
        assert (one.estimator, one.layer, one.stratum) == (
            other.estimator,
            other.layer,
            other.stratum,
        )
        same = np.allclose(
            [one.estimate, one.low, one.high],
            [other.estimate, other.low, other.high],
            rtol=1e-9,
            atol=1e-12,
            equal_nan=True,
        )
        equal += same
        if not same:
            differing.add(one.estimator)
    drawn = ("excess", "foreign", "retention", "crossed", "preservation")
    assert all(any(word in name for word in drawn) for name in differing), differing
    assert equal > 400


@pytest.mark.long
def test_without_its_runs_all_that_needs_no_rows_still_works(merged, tmp_path, capsys):
    out = shutil.copytree(merged / "none", tmp_path / "alone")
    with jaxlens.open_run(out) as run, jaxlens.open_run(merged / "none") as whole:
        assert run.names == () and run.summary() == whole.summary()
        with pytest.raises(errors.MissingError, match=r"none-\w+, which .* was merged from"):
            _ = run.corpus
    alone, beside = (study.study(run).results for run in (out, merged / "none"))
    assert list(map(repr, alone)) == list(map(repr, beside))  # NaN is not NaN
    assert run_cli("study", out) == run_cli("report", out) == 0
    where = ("--to", "csv", "--out", tmp_path / "tallies")
    assert run_cli("export", out, "--tallies", *where) == 0
    assert "was merged from" in capsys.readouterr().err  # no words of tokens
    assert run_cli("verify", out) == 65


def test_rows_of_a_run_that_is_missing_or_another_are_one_line(copied):
    first, *_, last = parts.canonical(copied)
    shutil.rmtree(copied / last)
    with jaxlens.open_run(copied / "all") as run:
        assert run["rank_input"][:5].any()
        assert run.summary()["input"]["mean_entropy"] > 0
        with pytest.raises(errors.MissingError, match=f"{last}, which .* is missing") as error:
            run["rank_input"][-5:]
        assert "jaxlens merge" in error.value.hint
    shutil.copytree(copied / first, copied / last)
    with (
        jaxlens.open_run(copied / "all") as run,
        pytest.raises(errors.DataError, match=f"{last} is not the run that"),
    ):
        run["rank_input"][-5:]


def test_totals_are_added_up_again_where_the_summary_is_missing(copied):
    with jaxlens.open_run(copied / "all") as run:
        expected = run.tally
    (copied / "all" / "summary.h5").unlink()
    with jaxlens.open_run(copied / "all") as run:
        assert run.layer_names == ("input", "h.0", "h.1")
        for name, total in expected.items():
            np.testing.assert_array_equal(run.tally[name], total)
