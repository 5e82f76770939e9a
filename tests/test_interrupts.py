"""Signals: none is lost, none stops a clean-up half-way, and each ends a command in two lines."""

import contextlib
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from sweeps import refused

from jaxlens import errors, interrupts
from jaxlens.files import scratch, system
from jaxlens.study import study
from jaxlens.study.report import content
from jaxlens.sweep import preemption

pytestmark = pytest.mark.usefixtures("hears_hangups")

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def send(number):
    os.kill(os.getpid(), number)


def wait(seconds=20):
    """Runs code in which a signal may raise; returns where none has."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.01)


@contextlib.contextmanager
def swallowing(number):
    """The next collection of garbage gets a signal in a callback, whose exceptions are dropped."""
    sent = []

    def callback(phase, info):
        if not sent:
            sent.append(phase)
            send(number)
            time.sleep(0.01)

    gc.callbacks.append(callback)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
        assert sent


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.long] * (one == signal.SIGUSR1))
        for one in ALL
    ],
)
def test_a_signal_that_a_callback_swallows_is_raised_again(number, capsys):
    before = [signal.getsignal(one) for one in ALL], sys.unraisablehook
    with pytest.raises(interrupts.Signalled, match=number.name), interrupts.watched():
        with swallowing(number):
            gc.collect()
        wait()
    assert ([signal.getsignal(one) for one in ALL], sys.unraisablehook) == before
    assert capsys.readouterr().err == ""


def test_a_signal_that_a_callback_swallows_during_a_sweep_is_raised_again(capsys):
    asked = preemption.StopRequest(600)
    with (
        pytest.raises(errors.InterruptedRun, match="SIGTERM"),
        interrupts.watched(),
        preemption.on_signals(asked),
    ):
        with swallowing(signal.SIGTERM):
            gc.collect()
        wait()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert capsys.readouterr().err == ""


def test_what_an_extension_prints_of_a_signal_is_not_shown(capsys):
    """As NumPy's, whose import ends with PyErr_Print, which calls this hook."""
    with interrupts.watched():
        sys.excepthook(interrupts.Signalled, interrupts.Signalled("SIGHUP"), None)
        assert capsys.readouterr().err == ""
        sys.excepthook(ValueError, ValueError("of another kind"), None)
        assert "of another kind" in capsys.readouterr().err


def test_what_swallows_every_exception_does_not_swallow_a_signal():
    tries = 0
    with pytest.raises(interrupts.Signalled), interrupts.watched():
        while True:
            try:
                tries += 1
                send(signal.SIGTERM) if tries == 1 else wait()
            except BaseException:
                if tries == 3:
                    raise
    assert tries == 3


def test_a_clean_up_is_not_interrupted_by_the_same_signal_nor_by_a_second_one():
    done = []
    with pytest.raises(interrupts.Signalled, match="SIGHUP"), interrupts.watched():
        try:
            send(signal.SIGHUP)
            wait()
        finally:
            wait(2 * interrupts.AGAIN_SECONDS + 0.1)
            send(signal.SIGTERM)
            wait(0.05)
            done.append("cleaned")
    assert done == ["cleaned"]


def test_a_third_signal_ends_a_clean_up_that_hangs():
    with pytest.raises(interrupts.Signalled), interrupts.watched():
        try:
            send(signal.SIGINT)
            wait()
        finally:
            send(signal.SIGINT)
            send(signal.SIGINT)
            wait()
            pytest.fail("it still hangs")


def test_a_scratch_folder_goes_whole_whenever_the_signal_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    remove, opened = os.unlink, os.open
    for name, during in (("unlink", remove), ("open", opened)):

        def interrupted(*given, during=during, **more):
            send(signal.SIGTERM)
            return during(*given, **more)

        with pytest.raises(interrupts.Signalled), interrupts.watched():
            with scratch.folder() as folder:
                (folder / "a").write_text("a")
                if name == "unlink":
                    monkeypatch.setattr(os, name, interrupted)
                else:
                    send(signal.SIGTERM)
            wait()
        monkeypatch.setattr(os, name, during)
        assert os.listdir(tmp_path) == []


def test_a_signal_that_was_ignored_from_the_beginning_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.watched():
            send(signal.SIGHUP)
            wait(0.05)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


COMMANDS = {
    "tokenize": ["tokenize", "--out", "run"],
    "csv": ["export", "RUN", "--to", "csv", "--out", "x.csv"],
    "tallies": ["export", "RUN", "--to", "parquet", "--tallies", "--out", "t"],
    "hdf5": ["export", "RUN", "--to", "hdf5", "--out", "x.h5"],
    "study": ["study", "RUN", "--out", "s"],
    "report": ["report", "RUN", "--out", "x.html"],
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_stopped_while_it_writes_leaves_nothing(
    tiny, texts, swept, tmp_path, capsys, monkeypatch, name, number
):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(temporary))
    fsync = system.Disk.fsync

    def stopped(disk, descriptor):
        send(number)
        wait(0.01)
        fsync(disk, descriptor)

    if name in ("study", "report"):  # what they write is not what is asked about
        monkeypatch.setattr(study, "study", lambda *given: None)
        monkeypatch.setattr(study, "write", write_fake)
        monkeypatch.setattr(content, "gather", lambda *given: None)
        monkeypatch.setattr("jaxlens.study.report.page.page", lambda *given: "page")
    monkeypatch.setattr(system.Disk, "fsync", stopped)
    code = 130 if number == signal.SIGINT else 75
    monkeypatch.chdir(out)
    words = [swept if word == "RUN" else word for word in COMMANDS[name]]
    words += ["--model", tiny, "--corpus", texts] if name == "tokenize" else []
    told = refused(capsys, code, *words)
    by = "Ctrl-C" if number == signal.SIGINT else number.name
    again = "to resume" if name == "tokenize" else "again"
    assert told == f"error: interrupted by {by} hint: run the same command {again}"
    left = [path for path in out.rglob("*") if path.is_file()]
    assert left == [] and os.listdir(temporary) == []


def write_fake(found, folder):
    from jaxlens.files import outputs

    return outputs.write_all(folder, {"results.csv": b"results"})


def test_an_error_that_a_signal_has_caused_is_not_what_is_reported(capsys, monkeypatch, swept):
    def misled(*given):
        try:
            send(signal.SIGTERM)
            wait()
        except BaseException as error:
            raise errors.DataError("cannot be read", "repair it") from error

    monkeypatch.setattr(study, "study", misled)
    assert "interrupted by SIGTERM" in refused(capsys, 75, "study", swept)


IMPORTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "cyclopts":
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Finder())
sys.argv = ["jaxlens", "run", "--out", "{out}"]
from jaxlens.cli.entry import main
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGHUP", 75), ("SIGINT", 130)])
def test_a_signal_during_the_imports_of_a_command_ends_it_alike(tmp_path, name, code):
    script = IMPORTED.format(name=name, out=tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    by = "Ctrl-C" if name == "SIGINT" else name
    assert done.stderr.splitlines() == [
        f"error: interrupted by {by}",
        "hint: run the same command to resume",
    ]
    assert done.returncode == code and os.listdir(tmp_path) == []


def test_the_installed_command_watches_signals_from_the_beginning():
    project = pathlib.Path(__file__).parent.parent / "pyproject.toml"
    assert 'jaxlens = "jaxlens.cli.entry:main"' in project.read_text()
