"""Verifying in a process with limits: the same answer, and no way to harm whoever asks."""

import json
import os
import resource
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from store import example

from jaxlens import errors
from jaxlens.store import layout, untrusted, verify

ROWS = 8
SLACK = 5.0
"""Seconds that a loaded machine may need to start and end a process."""


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path / "run", 2, ROWS)
    return tmp_path / "run"


def say(text):
    """What a child does that begins, looks at a file, and then runs this."""
    return (
        "import json, os, signal, sys, time\n"
        'print(\'{"at":""}\\n{"at":"shards/part-00001.h5"}\', flush=True)\n' + text
    )


def child(monkeypatch, code, seconds=60):
    monkeypatch.setattr(untrusted, "_CHILD", code)
    monkeypatch.setattr(untrusted, "SECONDS", seconds)


@pytest.mark.parametrize("level", ["fast", "full"])
def test_sound_and_damaged_runs_have_the_same_report_as_without_limits(out, level):
    assert untrusted.verify_untrusted(out, level) == verify.verify(out, level)
    os.truncate(layout.shard_path(out, 0), 1000)
    (out / "shards" / "\udcff\x1b[2J").write_bytes(b"")
    (out / "summary.h5").unlink()
    found = untrusted.verify_untrusted(out, level)
    assert found == verify.verify(out, level) and len(found.damaged) >= 2


def test_missing_runs_are_missing(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(errors.MissingError, match="no"):
            untrusted.verify_untrusted(folder)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("sys.exit(3)", "exit status 3"),
        ("pass", "exit status 0"),
        ("print('garbage', flush=True); time.sleep(60)", "nonsense"),
        ("print('[' * 100000, flush=True); time.sleep(60)", "nonsense"),
        ("print('{\"a\":' * 99 + '1' + '}' * 99)", "nonsense"),
        ("sys.stdout.write('x' * (20 << 20)); time.sleep(60)", "too much"),
        ("sys.stdout.close(); os.close(1); time.sleep(60)", "too long"),
        ('print(json.dumps({"report": {"shards": 1, "rows": 0}}))', "nonsense"),
        ('print(json.dumps({"died": "needs more"}))', "needs more"),
    ],
)
def test_child_that_dies_or_talks_nonsense_is_a_finding_about_the_file_in_work(
    out, monkeypatch, code, what
):
    child(monkeypatch, say(code))
    began = time.monotonic()
    report = untrusted.verify_untrusted(out)
    assert time.monotonic() - began < SLACK
    ((name, found),) = report.damaged
    assert name == "shards/part-00001.h5" and what in found, found


@pytest.mark.parametrize(
    "code", ["time.sleep(600)", "while True: print('{\"at\":\"' + 'x' * 5000 + '\"}', flush=True)"]
)
def test_child_that_never_ends_is_stopped(out, monkeypatch, code):
    child(monkeypatch, say(code), seconds=0.25)
    began = time.monotonic()
    ((name, found),) = untrusted.verify_untrusted(out).damaged
    assert time.monotonic() - began < SLACK
    assert "too long" in found and len(name) <= 1000


def test_child_that_computes_too_long_is_stopped_by_the_system(out, monkeypatch):
    spin = "from jaxlens.store import untrusted; untrusted._limit(1 << 30, 1)\nwhile True: pass"
    child(monkeypatch, say(spin))
    assert "too long" in untrusted.verify_untrusted(out).damaged[0][1]


def test_findings_without_sense_are_findings_and_not_errors(out, monkeypatch):
    damaged = [["RUN.json", "odd"], ["one"], 3, [1, 2], {"a": 1}]
    found = {"shards": 1, "rows": 2, "damaged": damaged, "missing": 0, "finished": True}
    report = {"report": found}
    child(monkeypatch, say(f"print(json.dumps({report!r}))"))
    found = untrusted.verify_untrusted(out)
    assert found.damaged[0] == ("RUN.json", "odd") and len(found.damaged) == 5
    assert {name for name, _ in found.damaged[1:]} == {"the run"}


def test_child_that_cannot_begin_is_no_finding(out, monkeypatch):
    child(monkeypatch, "raise MemoryError")
    with pytest.raises(errors.StorageError, match="exit status 1"):
        untrusted.verify_untrusted(out)
    monkeypatch.setattr(sys, "executable", str(out / "none"))
    with pytest.raises(errors.StorageError, match="No such file"):
        untrusted.verify_untrusted(out)


def test_run_that_needs_too_much_memory_is_a_finding_that_names_the_file(out):
    path = layout.shard_path(out, 1)
    with path.open("r+b") as file:  # sparse, so that reading it takes time and memory alone
        file.truncate(1 << 40)
    began = time.monotonic()
    found = untrusted.verify_untrusted(out)
    assert time.monotonic() - began < SLACK
    assert [name for name, _ in found.damaged] == ["shards/part-00001.h5"]
    os.truncate(path, 0)
    with h5py.File(path, "w") as file:
        file["kl_final"] = np.zeros((ROWS, 4), "f2")
    assert "needs more memory" in untrusted.verify_untrusted(out, memory=1 << 20).damaged[0][1]


@pytest.mark.parametrize("name", ["RUN.json", "shards/part-00000.h5", "tokens/tokens.bin"])
def test_links_and_pipes_end_as_findings_in_no_time(out, name):
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        (out / name).unlink()
        make(out / name)
        began = time.monotonic()
        found = untrusted.verify_untrusted(out)
        assert time.monotonic() - began < SLACK
        assert name in {where for where, _ in found.damaged}


def test_time_that_a_run_is_given_depends_on_its_own_files_alone(out):
    (out / "shards" / "deep").mkdir()
    for name in ("deep/large", "sparse"):
        with (out / "shards" / name).open("wb") as file:
            file.truncate(1 << 40)
            file.write(bytes(2 << 20) if name == "deep/large" else b"")
    (out / "tokens").rename(out.parent / "tokens")
    (out / "tokens").symlink_to("/usr/bin")
    assert 1 << 16 < untrusted._size(out) < 1 << 20
    assert not untrusted.verify_untrusted(out, "fast").ok


def test_child_inherits_no_secret_and_no_descriptor_and_can_write_into_no_file(
    out, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    target = str(tmp_path / "written")
    look = (
        "from jaxlens.store import untrusted; untrusted._limit(1 << 30, 60)\n"
        "found = {'secret' in v for v in os.environ.values()}, os.listdir('/dev/fd')\n"
        f"try: os.write(os.open({target!r}, os.O_CREAT | os.O_WRONLY), b'x')\n"
        "except OSError as error: found += (error.strerror,)\n"
        "print(json.dumps({'died': repr(found)}))"
    )
    child(monkeypatch, say(look))
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    ((_, what),) = untrusted.verify_untrusted(out).damaged
    os.close(descriptor)
    assert "{False}" in what and "File too large" in what and f"'{descriptor}'" not in what
    assert not (tmp_path / "written").read_bytes()


def test_child_lowers_every_limit_before_it_reads(out, monkeypatch, capsys):
    lowered = {}
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: lowered.update({which: pair[0]}))
    monkeypatch.setattr(sys, "argv", ["-c", json.dumps([str(out), "full", 1 << 30, 77])])
    untrusted.main()
    assert lowered[resource.RLIMIT_CORE] == lowered[resource.RLIMIT_FSIZE] == 0
    assert lowered[resource.RLIMIT_CPU] == 77 and lowered[resource.RLIMIT_NOFILE] <= 64
    assert lowered[resource.RLIMIT_AS] > 1 << 30
    first, *files, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"at": ""} and {"at": "shards/part-00001.h5"} in files
    more = {"damaged": [], "missing": 0, "finished": True}
    assert last["report"] == {"shards": 2, "rows": 2 * ROWS, **more}


def test_child_says_why_there_is_no_report(out, monkeypatch, capsys):
    monkeypatch.setattr(untrusted, "_limit", lambda memory, seconds: None)
    monkeypatch.setattr(sys, "argv", ["-c", json.dumps([str(out / "none"), "full", 0, 0])])
    untrusted.main()
    assert "is not a directory" in capsys.readouterr().out

    def need(*_):
        raise MemoryError

    monkeypatch.setattr(verify, "verify", need)
    untrusted.main()
    assert "needs more memory" in capsys.readouterr().out


def test_limits_that_a_system_lacks_are_left_out(out):
    """As on macOS: no ``/proc``, and limits that are refused."""
    code = (
        "import pathlib, resource; from jaxlens.store import untrusted\n"
        "def refuse(*_): raise ValueError\n"
        "resource.setrlimit, untrusted.Path = refuse, lambda _: pathlib.Path('/none')\n"
        "untrusted.main()"
    )
    wanted = json.dumps([str(out), "full", 1 << 20, 60])
    said = subprocess.check_output([sys.executable, "-c", code, wanted], text=True)
    assert json.loads(said.splitlines()[-1])["report"]["damaged"] == []


def test_few_resources_suffice(out):
    """64 descriptors, 1.5 GiB of addresses, one core."""
    code = (
        "import os, resource, sys; from jaxlens.store import untrusted\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))\n"
        "print(untrusted.verify_untrusted(sys.argv[1]).ok)"
    )
    root = str(example.Path(__file__).parents[2])
    command = [sys.executable, "-c", code, str(out)]
    assert subprocess.check_output(command, text=True, cwd=root).strip() == "True"
