"""Temporary folders: those of killed processes are removed, those in use and of others are not."""

import os
import subprocess
import sys
import tempfile

import pytest

from jaxlens.files import scratch

HOLD = """
import sys
from jaxlens.files import scratch
with scratch.folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def hold():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(place):
    killed, left = hold()
    killed.kill()
    killed.communicate()
    alive, used = hold()
    others = [place / name for name in ("jaxlens-mine", "other-abc", "jaxlens-file")]
    others[0].mkdir(mode=0o755)
    others[1].mkdir()
    others[2].write_text("x")
    (place / "jaxlens-link").symlink_to(others[0])
    assert not os.path.exists(left)  # the second process removed it when it began
    with scratch.folder() as mine:
        assert os.path.isdir(used) and mine.is_dir()
        (mine / "tokens.bin").write_bytes(b"x")
    assert not mine.exists()
    assert all(path.exists() for path in others) and (place / "jaxlens-link").is_symlink()
    alive.communicate()
    assert alive.returncode == 0 and not os.path.exists(used)
