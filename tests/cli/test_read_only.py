"""Runs that their reader may not write to: what only reads them works, the rest says so."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from sweeps import digest, refused, run_cli

NOBODY = 65534


@contextlib.contextmanager
def nobody():
    """This process without the rights of root; modules that are not loaded yet may be out of reach.

    Without root, whoever runs the tests is such a user already.
    """
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def folder(monkeypatch):
    """A folder that anybody can reach, and in the end nobody needs."""
    made = Path(tempfile.mkdtemp(prefix="read-only-"))
    made.chmod(0o755)
    yield made
    for path in made.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(made)


def sealed(source, target):
    """A copy that its readers cannot change."""
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


READING = (
    ("verify", "RUN"),
    ("verify", "RUN", "--fast"),
    ("study", "RUN", "--out", "OUT/study"),
    ("compare", "RUN", "OTHER", "--json"),
    pytest.param(("report", "RUN", "--out", "OUT/report.html"), marks=pytest.mark.long),
    ("export", "RUN", "--to", "csv", "--tallies", "--out", "OUT/tallies"),
)
WRITING = ("study", "report")  # unless they are told another place


@pytest.mark.parametrize("words", READING, ids="-".join)
def test_commands_that_read_a_run_need_no_right_to_write_to_it(studied, folder, capsys, words):
    warm, run = folder / "warm", sealed(studied / "trained", folder / "run")
    before = digest(run, derived=False)
    out, other = folder / "out", sealed(studied / "random-1", folder / "other")
    places = {"OTHER": str(other)}
    shutil.copytree(studied / "trained", warm)
    for own, place in ((False, warm), (True, run)):
        target = out / place.name
        target.mkdir(parents=True)
        target.chmod(0o777)
        with nobody() if own else contextlib.nullcontext():
            named = [places.get(w, w).replace("RUN", str(place)) for w in words]
            named = [w.replace("OUT/", f"{target}/") for w in named]
            assert run_cli(*named) == 0, capsys.readouterr().err
            if own and words[0] in WRITING:
                told = refused(capsys, 74, words[0], place)
                assert "Permission denied" in told and "check the disk and permissions" in told
    assert digest(run, derived=False) == before
    assert not any(path.name.endswith(".tmp") for path in folder.rglob("*"))


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=oct)
@pytest.mark.parametrize("words", [("verify",), ("verify", "--fast"), ("study",)], ids="-".join)
def test_a_run_that_may_not_be_read_is_said_to_be_so(studied, folder, capsys, words, mode):
    run = folder / "run"
    shutil.copytree(studied / "trained", run)
    run_cli("verify", run)  # what it imports may be out of reach later
    run.chmod(mode)
    with nobody():
        told = refused(capsys, 74, words[0], run, *words[1:])
    assert "Permission denied" in told and "check" in told
