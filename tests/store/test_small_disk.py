"""A disk that is full: one line, exit code 74, and the same command goes on when there is space.

The disk is a file system in memory that is too small, which only root can make.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store import example, faults

from jaxlens.files import temporary
from jaxlens.store import verify

pytestmark = pytest.mark.long

SIZES = range(16 << 10, 192 << 10, 12 << 10)
"""From too little for the spec to enough for all of the small run."""

SHARES = (0.005, 0.3, 0.9, 1.05)
"""Of the bytes of a run of the packaged model; the last lacks only the space that is kept free."""

ENOUGH = "64m"
PATHS = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))
STORE = """
import sys
from store import example, faults
from jaxlens import errors

class Blind(example.FastDisk):
    def free_bytes(self, path):
        return None

try:
    faults.write(sys.argv[1], Blind() if sys.argv[2] == "blind" else example.FAST)
except errors.StorageError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""
CLI = "from jaxlens.cli.main import main; main()"


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "jaxlens-test", folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root and the right to mount: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def enlarge(folder):
    subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", folder], check=True)


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": PATHS, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def lasting(out):
    """What must not depend on the disk: all but the notes on the environment."""
    return {n: raw for n, raw in example.tree(out).items() if not n.startswith("environment/")}


@pytest.mark.parametrize("eyes", ["open", "blind"])
def test_writer_on_a_full_disk_stops_and_goes_on_when_there_is_space(tmp_path, eyes):
    faults.write(tmp_path / "whole")
    expected, disk, codes, said = example.tree(tmp_path / "whole"), tmp_path / "disk", [], ""
    for size in SIZES:
        with small_disk(disk, size):
            ended = run(STORE, disk / "run", eyes)
            codes.append(ended.returncode)
            said += ended.stderr
            assert not any(map(temporary.is_temporary, os.listdir(disk / "run"))), size
            enlarge(disk)
            assert run(STORE, disk / "run", eyes).returncode == 0
            assert example.tree(disk / "run") == expected
    assert set(codes) == {0, 74} and codes.count(74) >= 5
    assert ("No space left on device" in said) == (eyes == "blind")
    assert ("bytes must be free" in said) == (eyes == "open")


def test_command_on_a_full_disk_says_so_in_two_lines_and_the_same_command_resumes(tmp_path):
    arguments = (CLI, "run", "--limit", "20k", "--out")
    assert run(*arguments, tmp_path / "whole").returncode == 0
    expected, disk = lasting(tmp_path / "whole"), tmp_path / "disk"
    needed = sum(map(len, expected.values()))
    for share in SHARES:
        with small_disk(disk, int(share * needed)):
            ended = run(*arguments, disk / "run")
            assert ended.returncode == 74, (share, ended.stderr)
            assert "Traceback" not in ended.stderr
            last = [line for line in ended.stderr.splitlines() if line.strip()][-2:]
            assert last[0].startswith("error: cannot write") and last[1].startswith("hint: free")
            assert ended.stderr.count("error:") == ended.stderr.count("hint:") == 1
            enlarge(disk)
            ended = run(*arguments, disk / "run")
            assert ended.returncode == 0, ended.stderr
            assert lasting(disk / "run") == expected
            assert verify.verify(disk / "run").ok
