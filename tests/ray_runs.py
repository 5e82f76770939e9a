"""Runs on Ray for tests: what processes they leave, nodes of a cluster, and a longer corpus."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import pytest
from sweeps import flags, start

GONE_SECONDS = 30
"""After which nothing of a killed run may be left; it takes some 3 s."""


@pytest.fixture
def mark():
    """A variable of the environment that all processes of a test inherit; none is left behind."""
    value = uuid.uuid4().hex
    yield {"TEST_MARK": value}
    deadline = time.monotonic() + GONE_SECONDS
    while left := marked(value):
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"processes are left: {left}")
        time.sleep(0.5)


def marked(value):
    """Processes with a variable of this value, and what they are called."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"TEST_MARK={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = command
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}


def busy(out):
    """Workers that are ready: they publish their process in the name of their note."""
    pids = [int(path.stem.rpartition("-")[2]) for path in out.glob("environment/*.json")]
    return [pid for pid in pids if is_worker(pid)]


def is_worker(pid):
    try:
        return b"ray::" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_zombie(pid):
    """Whether a process has ended, though nobody has asked for its status."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return fields[0] == "Z"


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def long_text(tmp_path_factory):
    """A text that takes a worker more than a minute: all that is to be killed is killed in time."""
    chance, path = random.Random(3), tmp_path_factory.mktemp("long") / "long.jsonl"
    words = ["quick", "brown", "fox", "jumps", "lazy", "dog", "rains", "town"]
    lines = [" ".join(chance.choices(words, k=chance.choice([5, 70, 200]))) for _ in range(1000)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def long_run(tiny, long_text, tmp_path_factory):
    out = tmp_path_factory.mktemp("long-run") / "out"
    assert start(*flags(tiny, long_text, out)).wait() == 0
    return out


def customised(folder, text):
    """Variables that make each Python of a test run some code when it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


class Nodes:
    """A cluster of nodes on this machine, as `ray start` makes them; none but these are ended."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, os.environ | environment
        self.started = []
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{unused.getsockname()[1]}"

    def add(self, **environment):
        number = len(self.started)
        how = ["--address", self.address]
        if not number:
            how = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false"]
            how += ["--temp-dir", str(self.folder)]
        ray = pathlib.Path(sys.executable).with_name("ray")
        command = [ray, "start", *how, "--num-cpus=1", "--disable-usage-stats", "--block"]
        with (self.folder / f"node-{number}.log").open("w") as log:
            told = {"stdout": log, "stderr": log, "env": self.environment | environment}
            self.started.append(subprocess.Popen(command, **told))

    def wait(self):
        """Until all nodes have joined."""
        deadline = time.monotonic() + 120
        for number in range(len(self.started)):
            log = self.folder / f"node-{number}.log"
            while "Ray runtime started" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)

    def end(self):
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            process.wait()


@pytest.fixture
def nodes(mark):
    with tempfile.TemporaryDirectory(prefix="jl-nodes-", ignore_cleanup_errors=True) as folder:
        made = Nodes(pathlib.Path(folder), mark | {"RAY_AUTH_MODE": "disabled"})
        yield made
        made.end()


def parent(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])
