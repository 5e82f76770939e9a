"""Workers on Ray that are wrong, stopped or out of room: the others finish, with the same files."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ray_runs import busy, customised, long_run, long_text, mark, nodes
from sweeps import digest, flags, start

from jaxlens.store import layout, verify

pytest.importorskip("ray", reason="Ray is not installed")
__all__ = ["long_run", "long_text", "mark", "nodes"]  # fixtures
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

# Each is run when a Python process starts, and waits for what it changes.
OTHER_SPEC = """
import sys, threading, time

def watch():
    while not hasattr(sys.modules.get("jaxlens.sweep.prepare"), "assemble"):
        time.sleep(0.001)
    prepare = sys.modules["jaxlens.sweep.prepare"]
    assemble = prepare.assemble

    def other(resolved, *given):
        return assemble(resolved.with_step_sequences(3), *given)

    prepare.assemble = other

threading.Thread(target=watch, daemon=True).start()
"""

OTHER_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {hours} * 3600
"""

FULL_DISK = """
import resource, signal, sys, threading, time

def watch():
    while not hasattr(sys.modules.get("jaxlens.sweep.in_process"), "execute"):
        time.sleep(0.001)
    ready = sys.modules["jaxlens.sweep.in_process"].Ready
    publish = ready.publish

    def full(self, *given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        return publish(self, *given)

    ready.publish = full

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
threading.Thread(target=watch, daemon=True).start()
"""


def finish_beside(nodes, tiny, long_text, out, environment):
    """A run that a node joins whose worker is wrong: what it told."""
    nodes.add()
    way = ("--distributed", "ray", "--address", nodes.address)
    command = (*flags(tiny, long_text, out), *way)
    process = start(*command, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not busy(out):
        time.sleep(0.1)
    nodes.add(**environment)
    _, told = process.communicate()
    assert process.returncode == 0, told
    return told.splitlines()


@pytest.mark.parametrize(
    ("text", "what"),
    [(OTHER_SPEC, "plan.step_sequences"), (FULL_DISK, "File too large")],
    ids=["spec", "disk"],
)
def test_a_wrong_worker_is_one_line_and_the_others_finish(
    tiny, long_text, tmp_path, long_run, nodes, text, what
):
    out = tmp_path / "out"
    told = finish_beside(nodes, tiny, long_text, out, customised(tmp_path / "wrong", text))
    refused = [line for line in told if "goes on without" in line]
    assert len(refused) == 1 and what in refused[0], told
    assert not any(line.startswith(("error:", "Traceback")) for line in told), told
    assert digest(out) == digest(long_run)
    assert verify.verify(out).ok


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong_changes_nothing(
    tiny, long_text, tmp_path, long_run, nodes, hours
):
    out, wrong = tmp_path / "out", customised(tmp_path / "wrong", OTHER_CLOCK.format(hours=hours))
    told = finish_beside(nodes, tiny, long_text, out, wrong)
    assert sum(" is ready at " in line for line in told) == 2, told
    assert digest(out) == digest(long_run)


def test_a_stopped_worker_gets_a_backup_and_may_go_on_later(
    tiny, long_text, tmp_path, long_run, nodes
):
    out, n_shards = tmp_path / "out", layout.read_spec(long_run).n_shards
    nodes.add()
    nodes.add()
    way = ("--distributed", "ray", "--address", nodes.address)
    command = (*flags(tiny, long_text, out), *way)
    process = start(*command, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (
        len(busy(out)) < 2 or len(list(out.glob("shards/**/*.h5"))) < n_shards - 8
    ):
        time.sleep(0.02)
    stopped = busy(out)[0]
    os.kill(stopped, signal.SIGSTOP)
    began = len(list(out.glob("shards/**/*.h5")))
    try:
        _, told = process.communicate()
    finally:
        try:
            os.kill(stopped, signal.SIGCONT)
        except ProcessLookupError:
            stopped = None
    assert process.returncode == 0 and began < n_shards, told
    assert not any(line.startswith("lost worker") for line in told.splitlines()), told
    time.sleep(5)
    print(f"{n_shards - began} shards were left; the worker was there afterwards: {stopped}")
    assert digest(out) == digest(long_run)
    assert verify.verify(out).ok


def test_workers_of_a_model_that_two_devices_share(tiny, texts, tmp_path, mark, nodes):
    cores = {name: value for name, value in os.environ.items() if name != "JAXLENS_DEVICES"}
    pair = ("--set", "mesh.model=2")
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert start(*flags(tiny, texts, alone), *pair, env=cores).wait() == 0
    way = ("--distributed", "ray", "--workers", "2")
    assert start(*flags(tiny, texts, out), *pair, *way, env=cores | mark).wait() == 0
    assert layout.read_spec(out).document["mesh"] == {"model": 2}
    assert digest(out) == digest(alone)
    nodes.add()
    # The number is known from the run that has begun.
    way = ("--distributed", "ray", "--address", nodes.address)
    command = (*flags(tiny, texts, out), *way)
    process = start(*command, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate()
    assert process.returncode == 2, told
    error, hint = told.splitlines()
    assert error.startswith("error: mesh.model is 2, and no node of the cluster") and hint
