"""The command that merges runs, and what other commands say of merged runs."""

import shutil

import pytest
from store.merged import parts
from store.merged.conftest import merged, parted
from sweeps import flags, refused, run_cli

__all__ = ["merged", "parted"]


@pytest.fixture
def runs(merged, tmp_path):
    for name in ("all", *parts.NAMES):
        shutil.copytree(merged / name, tmp_path / name)
    return tmp_path


def test_merging_says_what_was_merged_and_again_the_same(runs, capsys):
    names = [runs / name for name in parts.NAMES]
    for _ in range(2):
        assert run_cli("merge", runs / "new", *names) == 0
        told = capsys.readouterr().out
        assert (
            told == f"merged 3 runs into {runs / 'new'}: 4,251 tokens of 59 documents, 4,251 rows\n"
        )
    assert run_cli("verify", runs / "new") == 0
    assert "ok" in capsys.readouterr().out


def test_what_is_left_out_or_counted_twice_is_said(runs, parted, tiny, capsys):
    lines = [(parted / f"{name}.jsonl").read_text().splitlines() for name in ("a", "b")]
    (runs / "d.jsonl").write_text("\n".join([*lines[1], lines[0][3]]))
    other = parts.sweep(tiny, runs, "d", **parts.BASIC)
    told = refused(capsys, 2, "merge", runs / "new", runs / "a", other)
    assert "2 documents of several runs have the same text" in told and "--allow-repeated" in told
    assert run_cli("merge", runs / "new", runs / "a", other, "--allow-repeated") == 0
    assert "2 documents of several runs have the same text" in capsys.readouterr().err


def test_counts_of_other_text_are_said(merged, parted, tiny, tmp_path, capsys):
    assert run_cli("merge", tmp_path / "m", merged / "none-a", merged / "none-rest") == 0
    printed = capsys.readouterr()
    assert "totals only" in printed.out and "counts" not in printed.err
    of_one = {"token_counts": [str(parted / "a")]}
    for name in ("a", "b"):
        shutil.copy(parted / f"{name}.jsonl", tmp_path)
        parts.sweep(tiny, tmp_path, name, **parts.BASIC, **of_one)
    assert run_cli("merge", tmp_path / "n", tmp_path / "a", tmp_path / "b") == 0
    assert "counts that are not those of these runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("probe",), ("ablate",), ("repair",), ("verify", "--untrusted")], ids=lambda c: c[0]
)
def test_what_needs_a_run_that_was_swept_refuses_merged_ones(runs, capsys, command):
    told = refused(capsys, 2, command[0], runs / "all", *command[1:])
    assert "holds merged runs" in told


def test_no_run_goes_on_in_merged_runs(runs, parted, tiny, capsys):
    before = parts.tree(runs / "all")
    told = refused(capsys, 2, *flags(tiny, parted / "a.jsonl", runs / "all"))
    assert "holds merged runs" in told
    assert parts.tree(runs / "all") == before


def test_finalizing_merged_runs_makes_their_files_anew(runs, capsys):
    before = parts.tree(runs / "all")
    (runs / "all" / "summary.h5").unlink()
    assert run_cli("finalize", runs / "all") == 0
    assert parts.tree(runs / "all") == before
    (runs / "all" / "SOURCES.json").write_bytes(b"?")
    assert "jaxlens merge" in refused(capsys, 65, "finalize", runs / "all")


def test_commands_read_merged_runs(runs, merged, tmp_path, capsys):
    out = tmp_path / "rows.h5"
    assert run_cli("export", runs / "all", "--to", "hdf5", "--out", out) == 0
    assert run_cli("report", runs / "all") == 0
    page = (runs / "all" / "report.html").read_text()
    assert "jaxlens merge" in page and "merged of" in page
    told = refused(capsys, 2, "compare", runs / "all", runs / "a")
    assert "of other tokens" in told
    assert run_cli("compare", merged / "study", merged / "none") == 0


def test_one_run_is_not_merged(runs, capsys):
    refused(capsys, 2, "merge", runs / "new")
    assert "at least two" in refused(capsys, 2, "merge", runs / "new", runs / "a")
    assert not (runs / "new").exists()
