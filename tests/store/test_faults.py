"""The store under failing system calls, kills, power losses and rival writers."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store import example

from jaxlens import errors
from jaxlens.store import layout, publish, system, verify

OPERATIONS = (
    *("open_exclusive", "write", "fsync", "close", "rename", "link", "unlink"),
    *("make_directory", "fsync_directory", "free_bytes"),
)
SHARDS, ROWS = 2, 8
PATHS = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))


class Killed(BaseException):
    """Stands for a process that is gone."""


class Faulty(system.Disk):
    """Fails from the ``at``-th call on, in one of several ways; counts all calls."""

    def __init__(self, at=None, way=""):
        self.at, self.way, self.calls = at, way, 0

    def call(self, name, *arguments):
        number, self.calls = self.calls, self.calls + 1
        act = getattr(example.FAST, name)
        if self.at is None or number < self.at:
            return act(*arguments)
        if self.way == "killed":
            if number == self.at and name == "write":
                act(arguments[0], arguments[1][: arguments[1].nbytes // 2])
            raise Killed
        if self.way == "full" and name in ("write", "open_exclusive", "make_directory"):
            raise OSError(errno.ENOSPC, "full")
        if self.way == "broken" or (self.way == "once" and number == self.at):
            raise OSError(errno.EIO, "broken")
        return act(*arguments)


for _name in OPERATIONS:
    setattr(Faulty, _name, lambda self, *a, _name=_name: self.call(_name, *a))


def under_way(name):
    return publish.is_temporary(Path(name).name)


def write(out, disk=example.FAST):
    return example.write_run(out, SHARDS, ROWS, disk=disk)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    write(out)
    return example.tree(out)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    disk = Faulty()
    write(tmp_path_factory.mktemp("calls"), disk)
    assert disk.calls > 60
    return disk.calls


def survives_faults(tmp_path, expected, points, way):
    for at in points:
        out = tmp_path / str(at)
        try:
            write(out, Faulty(at, way))
            failed = False
        except (Killed, errors.StorageError):
            failed = True
        left = {n: raw for n, raw in example.tree(out).items() if not under_way(n)}
        assert all(raw == expected[name] for name, raw in left.items()), at
        assert failed or left == expected
        write(out)
        assert example.tree(out) == expected, at


@pytest.mark.parametrize(("way", "step"), [("killed", 1), ("once", 5), ("broken", 4), ("full", 3)])
def test_run_survives_a_fault_at_any_system_call(tmp_path, expected, calls, way, step):
    survives_faults(tmp_path, expected, range(0, calls, step), way)


@pytest.mark.long
@pytest.mark.parametrize("way", ["once", "broken", "full"])
def test_run_survives_a_fault_at_every_system_call(tmp_path, expected, calls, way):
    survives_faults(tmp_path, expected, range(calls), way)


def test_full_disk_leaves_no_temporary_file(tmp_path, calls):
    for at in range(0, calls, 5):
        out = tmp_path / str(at)
        with contextlib.suppress(errors.StorageError):
            write(out, Faulty(at, "full"))
        assert not any(under_way(name) for name in example.tree(out))


def test_random_kills_of_the_writing_process_leave_identical_runs(tmp_path):
    script = Path(__file__).with_name("kill_loop.py")
    environment = os.environ | {
        "PYTHONPATH": PATHS,
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, script, tmp_path, "50", "1"]
    printed = subprocess.check_output(command, env=environment, text=True)
    killed, runs, wrong, failed = map(int, printed.split())
    assert killed >= 50 and runs >= 2 and (wrong, failed) == (0, 0)


def test_rival_threads_that_write_one_run_agree(tmp_path, expected):
    for race in range(12):
        out, caught = tmp_path / str(race), []
        start = threading.Barrier(3)

        def work(out=out, caught=caught, start=start):
            start.wait()
            try:
                write(out)
            except BaseException as error:
                caught.append(error)

        rivals = [threading.Thread(target=work) for _ in range(3)]
        for rival in rivals:
            rival.start()
        for rival in rivals:
            rival.join()
        assert not caught, caught
        assert example.tree(out) == expected
        assert verify.verify(out).ok


def race(tmp_path, expected, races):
    """Lets three processes write each of several runs at the same time."""
    script = Path(__file__).with_name("race.py")
    command = [sys.executable, script, tmp_path, str(races)]
    environment = os.environ | {"PYTHONPATH": PATHS, "OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.check_output(command, env=environment, text=True) == "0\n"
    for number in range(races):
        assert example.tree(tmp_path / str(number)) == expected, number
        assert verify.verify(tmp_path / str(number)).ok


def test_rival_processes_that_write_one_run_agree(tmp_path, expected):
    race(tmp_path, expected, 10)


@pytest.mark.long
def test_a_hundred_races_of_processes_lose_and_double_nothing(tmp_path, expected):
    race(tmp_path, expected, 100)


def test_rival_that_removes_a_temporary_file_is_survived(tmp_path):
    class Rival(example.FastDisk):
        removed = 0

        def rename(self, source, target):
            if not self.removed:
                self.removed += 1
                os.unlink(source)
            super().rename(source, target)

    publish.publish(tmp_path / "a", b"data", Rival())
    assert (tmp_path / "a").read_bytes() == b"data"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
def test_limit_on_file_size_ends_in_a_storage_error_not_a_signal(tmp_path):
    script = (
        "import resource, sys; from store import example; from jaxlens import errors;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try: example.write_run(sys.argv[1], 2, 8)\n"
        "except errors.StorageError as error: print(error.exit_code, error.message)"
    )
    environment = os.environ | {"PYTHONPATH": PATHS}
    out = tmp_path / "run"
    printed = subprocess.check_output(
        [sys.executable, "-c", script, out], env=environment, text=True
    )
    assert printed.startswith("74 ") and "part-00000.h5: File too large" in printed
    assert layout.read_spec(out).n_shards == 2
    assert write(out) == [0, 1]
