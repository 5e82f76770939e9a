"""Runs on a Ray cluster: the same files as one process's, whatever is killed."""

import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from ray_runs import (
    GONE_SECONDS,
    busy,
    customised,
    is_zombie,
    kill,
    long_run,
    long_text,
    mark,
    marked,
    nodes,
    parent,
)
from sweeps import configure, digest, flags, run_cli, start

import jaxlens
from jaxlens.store import verify

pytest.importorskip("ray", reason="Ray is not installed")
__all__ = ["long_run", "long_text", "mark", "nodes"]  # fixtures

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_two_workers_write_the_files_of_one_process(tiny, texts, tmp_path, swept, mark):
    out = tmp_path / "out"
    command = (*flags(tiny, texts, out), "--distributed", "ray", "--workers", "2")
    with tempfile.TemporaryDirectory(prefix="jl-") as temporary:
        environment = os.environ | mark | {"TMPDIR": temporary}
        process = start(*command, env=environment, stderr=subprocess.PIPE, text=True)
        folder, open_to_others = pathlib.Path(temporary), set()
        while process.poll() is None:
            open_to_others |= {path.stat().st_mode & 0o77 for path in folder.glob("jaxlens-*")}
            time.sleep(0.05)
        _, told = process.communicate()
        assert not list(folder.glob("jaxlens-*"))
    assert process.returncode == 0, told
    # Workers look for modules there, and Ray lets everyone write to the folders that it makes.
    assert open_to_others == {0}
    assert digest(out) == digest(swept)
    lines = told.splitlines()
    assert lines[0] == "tokenising the corpus" and lines[-1].startswith("skipped 2 documents")
    assert all(line.startswith("worker ") and " is ready at " in line for line in lines[1:-1])
    assert verify.verify(out).ok


@pytest.mark.long
def test_from_python_and_with_four_workers_and_what_is_finished_is_left_alone(
    tiny, texts, tmp_path, swept
):
    class Heard:
        def begin(self, total, done):
            self.total, self.done = total, done

        def advance(self, count):
            self.done += count

    heard, engine = Heard(), jaxlens.RayEngine(workers=4)
    result = jaxlens.run_sweep(configure(tiny, texts, tmp_path / "out"), heard, engine=engine)
    assert digest(tmp_path / "out") == digest(swept)
    assert result.finished and result.computed == result.n_shards == 9
    assert heard.done == heard.total == result.n_tokens
    again = jaxlens.run_sweep(configure(tiny, texts, tmp_path / "out"), engine=engine)
    assert again.finished and again.computed == 0 and again.tokens_per_second is None


@pytest.mark.long
def test_a_mix_of_processes_shares_and_ray_in_one_folder(tiny, long_text, tmp_path, long_run, mark):
    out = tmp_path / "out"
    command = flags(tiny, long_text, out)
    assert run_cli("tokenize", *command[1:7]) == 0
    ways = (
        ("--distributed", "ray", "--workers", "2"),
        ("--shard", "auto"),
        ("--shard", "1/3"),
    )
    slurm = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    started = [start(*command, *way, env=os.environ | slurm | mark) for way in ways]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert digest(out) == digest(long_run)


WATCH = """
import os, sys, threading, time

def watch():
    while not hasattr(sys.modules.get("jaxlens.sweep.job"), "Job"):
        time.sleep(0.01)
    job = sys.modules["jaxlens.sweep.job"].Job
    batch = job.batch

    def watched(self, number, tokens):
        with open({path!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{number}}\\n")
        return batch(self, number, tokens)

    job.batch = watched

threading.Thread(target=watch, daemon=True).start()
"""
STEPS = 4  # of a shard

DRAINS = """
import os, sys, threading, time

def watch():
    while not hasattr(sys.modules.get("jaxlens.sweep.in_process"), "execute"):
        time.sleep(0.01)
    ready = sys.modules["jaxlens.sweep.in_process"].Ready
    publish = ready.publish

    def watched(self, numbers, count, stop):
        before = count.shards
        rate = publish(self, numbers, count, stop)
        with open({path!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{count.shards - before}}\\n")
        return rate

    ready.publish = watched

threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.long
def test_a_worker_goes_on_from_lease_to_lease_without_a_pause(
    tiny, long_text, tmp_path, long_run, mark
):
    out, drains = tmp_path / "out", tmp_path / "drains"
    watched = customised(tmp_path / "watch", DRAINS.format(path=str(drains)))
    command = (*flags(tiny, long_text, out), "--distributed", "ray", "--workers", "2")
    assert start(*command, env=os.environ | mark | watched).wait() == 0
    told = [tuple(map(int, line.split())) for line in drains.read_text().splitlines()]
    print(f"shards of a worker until it has none: {told}")
    pids = [pid for pid, _ in told]
    # Beside the first lease, which is of one shard, and the last few, which are given back.
    assert max(pids.count(pid) for pid in pids) <= 3
    assert digest(out) == digest(long_run)


@pytest.mark.long
def test_twenty_workers_and_three_drivers_are_killed(tiny, long_text, tmp_path, long_run, mark):
    out, chance = tmp_path / "out", random.Random(5)
    begun = tmp_path / "begun"
    watched = customised(tmp_path / "watch", WATCH.format(path=str(begun)))
    command = (*flags(tiny, long_text, out), "--distributed", "ray", "--workers", "2")
    killed = {"workers": 0, "drivers": 0}
    while True:
        process, ends = start(*command, env=os.environ | mark | watched), {}
        while process.poll() is None:
            time.sleep(0.05)
            for pid in busy(out):
                end = ends.setdefault(pid, time.monotonic() + chance.uniform(0.1, 2))
                if killed["workers"] < 20 and time.monotonic() > end:
                    killed["workers"] += kill(pid)
            if killed["drivers"] < 3 and killed["workers"] >= 5 * (killed["drivers"] + 1):
                killed["drivers"] += kill(process.pid)
                break
        if (status := process.wait()) == 0:
            break
        assert status == -signal.SIGKILL
    steps = {tuple(map(int, line.split())) for line in begun.read_text().splitlines()}
    every = {number for _, number in steps}
    again = (len(steps) - len(every)) / STEPS
    print(f"{killed}; of {len(every) / STEPS:.0f} shards {again} were computed again")
    assert killed == {"workers": 20, "drivers": 3}
    assert digest(out) == digest(long_run)
    # Of each worker the shard in work and the one that is being published; a driver has two.
    assert again <= 2 * (killed["workers"] + 2 * killed["drivers"])


@pytest.mark.long
@pytest.mark.parametrize("who", ["command", "driver", "both"])
def test_nothing_is_left_of_a_run_that_is_killed(tiny, long_text, tmp_path, mark, who):
    out = tmp_path / "out"
    command = (*flags(tiny, long_text, out), "--distributed", "ray", "--workers", "2")
    process = start(*command, env=os.environ | mark)
    while process.poll() is None and not any(out.glob("shards/**/*.h5")):
        time.sleep(0.1)
    left = marked(mark["TEST_MARK"])
    drivers = [pid for pid, name in left.items() if "ray_driver" in name]
    assert len(drivers) == 1 and len(left) > 5
    for pid in {"command": [process.pid], "driver": drivers, "both": [process.pid, *drivers]}[who]:
        kill(pid)
    assert process.wait() == (75 if who == "driver" else -signal.SIGKILL)
    # The agents of Ray write a title over their environment.
    deadline = time.monotonic() + GONE_SECONDS
    while alive := [pid for pid in left if pathlib.Path(f"/proc/{pid}/maps").exists()]:
        if all(is_zombie(pid) for pid in alive):
            break
        assert time.monotonic() < deadline, [left[pid] for pid in alive]
        time.sleep(0.2)


@pytest.mark.long
def test_a_kill_every_two_seconds_ends_in_a_finished_run_once_it_stops(
    tiny, long_text, tmp_path, long_run, mark
):
    out = tmp_path / "out"
    command = (*flags(tiny, long_text, out), "--distributed", "ray", "--workers", "2")
    process = start(*command, env=os.environ | mark)
    kills, began = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(2)
        if time.monotonic() < began + 90:
            pids = [pid for pid, name in marked(mark["TEST_MARK"]).items() if "ray::Actor" in name]
            kills += kill(random.Random(kills).choice(sorted(pids))) if pids else 0
    print(f"{kills} kills")
    assert process.returncode == 0 and kills >= 5
    assert digest(out) == digest(long_run)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_code_and_one_line(
    tiny, long_text, tmp_path, long_run, mark, number
):
    out = tmp_path / "out"
    command = (*flags(tiny, long_text, out), "--distributed", "ray", "--workers", "2")
    process = start(*command, env=os.environ | mark, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(out.glob("shards/**/*.h5")):
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == (75 if number == signal.SIGTERM else 130), told
    ends = [line for line in told.splitlines() if line.startswith(("error", "hint"))]
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert ends == [f"error: interrupted by {name}", "hint: run the same command to resume"]
    assert not list(out.glob("shards/**/.*")) or number == signal.SIGINT
    assert start(*command, env=os.environ | mark).wait() == 0
    assert digest(out) == digest(long_run)


@pytest.mark.long
def test_an_error_of_a_worker_is_told_once_with_its_code(tiny, texts, tmp_path, mark):
    command = (*flags(tmp_path / "none", texts, tmp_path / "out"), "--distributed", "ray")
    process = start(*command, env=os.environ | mark, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate()
    assert process.returncode == 66
    assert [line.split(":")[0] for line in told.splitlines()] == ["error", "hint"], told


@pytest.mark.long
@pytest.mark.parametrize(("part", "called"), [("gcs_server", "head"), ("raylet/raylet", "node")])
def test_the_cluster_of_a_run_ends_with_its_head_or_node(
    tiny, long_text, tmp_path, mark, part, called
):
    out = tmp_path / "out"
    command = (*flags(tiny, long_text, out), "--distributed", "ray")
    process = start(*command, env=os.environ | mark, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not busy(out):
        time.sleep(0.1)
    heads = [pid for pid, name in marked(mark["TEST_MARK"]).items() if part in name.split()[0]]
    assert len(heads) == 1 and kill(heads[0])
    _, told = process.communicate()
    assert process.returncode == 75, told
    ends = [line for line in told.splitlines() if not line.startswith("worker ")]
    assert ends[-2].startswith(f"error: the {called} of the Ray cluster ")
    assert ends[-2].endswith("lost")
    assert ends[-1].startswith("hint: ")


POISON = """
import os, signal, sys, threading, time

def watch():
    while not hasattr(sys.modules.get("jaxlens.sweep.compute"), "build"):
        time.sleep(0.01)
    compute = sys.modules["jaxlens.sweep.compute"]
    build = compute.build

    def poisoned(job, shard, buffer):
        if shard.number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return build(job, shard, buffer)

    compute.build = poisoned

threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.long
def test_a_shard_that_kills_its_workers_is_named_when_all_else_is_done(
    tiny, texts, tmp_path, mark, swept
):
    out = tmp_path / "out"
    command = (*flags(tiny, texts, out), "--distributed", "ray", "--workers", "2")
    environment = os.environ | mark | customised(tmp_path / "poison", POISON)
    process = start(*command, env=environment, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate()
    assert process.returncode == 1, told
    error, hint = told.splitlines()[-2:]
    assert error.startswith("error: shard 5 has killed several workers") and "--shard 5/9" in hint
    assert len(list(out.glob("shards/**/*.h5"))) == 8
    assert run_cli(*flags(tiny, texts, out), "--shard", "5/9") == 0
    assert digest(out) == digest(swept)


@pytest.mark.long
def test_a_node_that_is_lost_leaves_its_work_to_the_other_and_one_may_join(
    tiny, long_text, tmp_path, long_run, nodes
):
    out = tmp_path / "out"
    nodes.add()
    nodes.add()
    way = ("--distributed", "ray", "--address", nodes.address)
    command = (*flags(tiny, long_text, out), *way)
    process = start(*command, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(busy(out)) < 2:
        time.sleep(0.1)
    nodes.started[1].kill()
    for pid, name in marked(nodes.environment["TEST_MARK"]).items():
        if "raylet" in name and parent(pid) in (1, nodes.started[1].pid):
            kill(pid)
    nodes.add()
    _, told = process.communicate()
    assert process.returncode == 0, told
    lost = [line for line in told.splitlines() if line.startswith("lost worker ")]
    assert lost and all("its node" in line for line in lost), told
    assert sum(" is ready at " in line for line in told.splitlines()) == 3, told
    assert digest(out) == digest(long_run)


@pytest.fixture
def older(tmp_path):
    """What makes a node one that has another version."""
    package = pathlib.Path(jaxlens.__file__).parent
    shutil.copytree(package, tmp_path / "older" / "jaxlens")
    file = tmp_path / "older" / "jaxlens" / "__init__.py"
    text = file.read_text()
    file.write_text(text.replace(f'"{jaxlens.__version__}"', '"0.0.9"'))
    return {"PYTHONPATH": str(tmp_path / "older")}


def run_on(nodes, *command):
    """Exit status of a run on a cluster, and what it wrote to stderr."""
    way = ("--distributed", "ray", "--address", nodes.address)
    process = start(*command, *way, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    told = process.communicate()[1]
    return process.returncode, told


@pytest.mark.long
def test_a_run_does_without_a_node_of_another_version(tiny, texts, tmp_path, nodes, older, swept):
    nodes.add(**older)
    nodes.add()
    nodes.wait()
    status, told = run_on(nodes, *flags(tiny, texts, tmp_path / "out"))
    assert status == 0, told
    without = [line for line in told.splitlines() if "goes on without" in line]
    assert len(without) == 1 and "jaxlens: 0.0.9" in without[0], told
    assert digest(tmp_path / "out") == digest(swept)


@pytest.mark.long
def test_another_version_on_a_worker_is_refused_before_it_compiles(
    tiny, texts, tmp_path, nodes, older
):
    nodes.add(**older)
    status, told = run_on(nodes, *flags(tiny, texts, tmp_path / "out"))
    assert status == 2, told
    error, hint = told.splitlines()
    host = socket.gethostname()
    here = f"{jaxlens.__version__} at the driver"
    assert error == f"error: jaxlens: 0.0.9 on the worker at {host}, {here}"
    assert hint.startswith("hint: install the same versions")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_command_of_a_job_of_slurm_on_one_machine(tiny, texts, tmp_path, mark, swept):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    ray = pathlib.Path(sys.executable).with_name("ray")
    # `ray stop`, with which the command ends, would end every Ray of this machine.
    (tmp_path / "ray").write_text(f'#!/bin/sh\n[ "$1" = stop ] || exec {ray} "$@"\n')
    (tmp_path / "ray").chmod(0o755)
    run = [sys.executable, "-m", "jaxlens", *map(str, flags(tiny, texts, tmp_path / "out"))]
    folder = tempfile.mkdtemp(prefix="jl-nodes-")
    node = ["--include-dashboard=false", f"--temp-dir={folder}"]
    way = ["ray", "symmetric-run", "--address", address, *node, "--"]
    paths = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*way, *run, "--distributed", "ray", "--address", address],
        env=os.environ | mark | {"PATH": paths, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in marked(mark["TEST_MARK"]):
        kill(pid)
    shutil.rmtree(folder, ignore_errors=True)
    if "Ray is already started" in done.stderr:
        pytest.skip("another Ray runs on this machine")
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "out") == digest(swept)


def test_without_ray_it_is_one_line(tiny, texts, tmp_path, mark):
    (tmp_path / "ray.py").write_text("raise ImportError('not here')\n")
    command = (*flags(tiny, texts, tmp_path / "out"), "--distributed", "ray")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | mark | {"PYTHONPATH": paths}
    process = start(*command, env=environment, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate()
    assert process.returncode == 66
    assert told.splitlines() == [
        "error: runs with --distributed ray need the package ray, which is not installed",
        "hint: in a clone of jaxlens: pip install '.[ray]'",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_no_cluster_at_the_address_is_one_line(tiny, texts, tmp_path, mark):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    command = (*flags(tiny, texts, tmp_path / "out"), "--distributed", "ray", "--address", address)
    process = start(*command, env=os.environ | mark, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate()
    assert process.returncode == 66
    assert told.splitlines()[0].startswith(f"error: no Ray cluster answers at {address}")
    assert len(told.splitlines()) == 2, told


@pytest.mark.long
@pytest.mark.parametrize("sent", [None, signal.SIGTERM])
def test_what_is_no_cluster_is_given_up_and_a_signal_ends_the_wait(
    sent, tiny, texts, tmp_path, mark
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        how = ("--distributed", "ray", "--address", address)
        command = (*flags(tiny, texts, tmp_path / "out"), *how)
        process = start(*command, env=os.environ | mark, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0]:  # the first knock; Ray's own connection is never accepted
            if sent is not None:
                process.send_signal(sent)
            _, told = process.communicate(timeout=120)
    what = "interrupted by SIGTERM" if sent else f"no Ray cluster answers at {address}"
    assert told.startswith(f"error: {what}") and len(told.splitlines()) == 2, told
    assert process.returncode == (75 if sent else 66)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--workers", "2"), "--workers without --distributed"),
        (("--address", "a:1"), "--address without --distributed"),
        (("--distributed", "ray", "--workers", "0"), "workers is 0"),
        (("--distributed", "ray", "--workers", "two"), "--workers two"),
        (("--distributed", "ray", "--shard", "0/2"), "--shard 0/2 with --distributed"),
        (("--distributed", "ray", "--address", "auto"), "address of a Ray cluster is 'auto'"),
        (("--distributed", "ray", "--address", "ray://a:1"), "address of a Ray cluster"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, what, tiny, texts, tmp_path, capsys):
    assert run_cli(*flags(tiny, texts, tmp_path / "out"), *words) == 2
    assert what in capsys.readouterr().err


def test_the_driver_loads_neither_jax_nor_a_model():
    code = (
        "import sys\n"
        "from jaxlens.sweep.distributed import ray_driver, actor\n"
        "sys.exit('jax' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
