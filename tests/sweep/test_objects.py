"""Sweeps into object stores, by the real command line against a real object_server."""

import contextlib
import random
import signal
import sys
import time

import object_server
import pytest
import sweeps
from store.objects import object_run

import jaxlens
from jaxlens.files import mounts
from jaxlens.store.objects import names
from jaxlens.sweep import run

SMALL = {"store.shard_tokens": 128, "plan.step_sequences": 4}
IMPATIENT = (
    "import sys\n"
    "from jaxlens.store.objects import client\n"
    "client.RETRY_SECONDS = 1.0\n"
    "import jaxlens.cli.main\n"
    "jaxlens.cli.main.main(sys.argv[1:])\n"
)


@pytest.fixture(scope="module")
def in_directory(tiny, texts, tmp_path_factory):
    """The same run in a directory: every file but the notes, which differ from run to run."""
    object_server.require()
    out = tmp_path_factory.mktemp("in-directory") / "run"
    run.run(sweeps.configure(tiny, texts, out, **SMALL))
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if is_kept(name)}


def is_kept(name):
    return not (name.startswith("environment/") and name.endswith(".json"))


def kept(url):
    return {name: data for name, data in object_run.tree(url).items() if is_kept(name)}


def words(tiny, texts, url):
    return (*sweeps.flags(tiny, texts, url), "--set", "store.shard_tokens=128")


def committed(url):
    names_ = (name for name, _ in object_run.connect(url).list())
    return sum(names.record_number(name) is not None for name in names_)


def wait_for_shards(url, count, process):
    for _ in range(3000):
        if committed(url) >= count or process.poll() is not None:
            return
        time.sleep(0.02)


def test_a_sweep_is_the_same_in_an_object_store(tiny, texts, url, in_directory, capsys):
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    assert f"{url}: " in capsys.readouterr().out
    assert kept(url) == in_directory
    for data in object_run.tree(url).values():
        assert object_server.SECRET.encode() not in data and object_server.HOST.encode() not in data
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    assert "finished already" in capsys.readouterr().out
    assert sweeps.run_cli("verify", url) == sweeps.run_cli("finalize", url) == 0
    assert kept(url) == in_directory


def test_it_is_studied_and_exported_from_there(tiny, texts, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    before = object_run.tree(url)
    for command in ("study", "report"):
        assert sweeps.run_cli(command, url) == 0
    assert sweeps.run_cli("export", url, "--to", "hdf5") == 0
    assert sweeps.run_cli("compare", url, url) == 2  # read, and found to be the same
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["run-report.html", "run-study", "run.h5"]
    assert f"jaxlens report {url}" in (tmp_path / "run-report.html").read_text()
    assert object_run.tree(url) == before
    with jaxlens.open_run(url) as opened:
        assert opened.corpus.tokens(0, 5).shape == (5,)


def test_tokens_can_be_made_before(tiny, texts, url, in_directory, capsys):
    corpus = ("--model", tiny, "--corpus", texts, "--out", url)
    assert sweeps.run_cli("tokenize", *corpus) == 0
    assert f"made {url}/tokens" in capsys.readouterr().out
    assert sweeps.run_cli("tokenize", *corpus) == 0
    assert f"found {url}/tokens" in capsys.readouterr().out
    assert sweeps.run_cli(*words(tiny, texts, url), "--dry-run") == 0
    assert url in capsys.readouterr().out
    assert {name.partition("/")[0] for name in object_run.tree(url)} == {"tokens"}
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    assert kept(url) == in_directory


def test_workers_share_a_run_and_take_over(tiny, texts, url, in_directory, monkeypatch):
    for key, value in {"COUNT": 2, "MIN": 0, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", str(value))
    workers = []
    for number in range(2):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        workers.append(sweeps.start(*words(tiny, texts, url), "--shard", "auto"))
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    assert kept(url) == in_directory


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_killed_sweeps_resume_to_the_same_objects(tiny, texts, url, in_directory, kills):
    chance = random.Random(3)
    for number in range(kills):
        process = sweeps.start(*words(tiny, texts, f"{url}/{number}"))
        wait_for_shards(f"{url}/{number}", chance.randrange(1, 20), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert sweeps.start(*words(tiny, texts, f"{url}/{number}")).wait() == 0
        assert kept(f"{url}/{number}") == in_directory


def test_a_server_that_goes_away_ends_a_sweep_that_resumes(
    tiny,
    texts,
    url,
    s3,
    in_directory,
    monkeypatch,
):
    port, running = object_server.proxy(s3, "none")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(running)
        with monkeypatch.context() as through:
            through.setenv("AWS_ENDPOINT_URL", object_server.environment(port)["AWS_ENDPOINT_URL"])
            streams = {"stderr": sweeps.subprocess.PIPE, "text": True}
            command = [sys.executable, "-c", IMPATIENT, *map(str, words(tiny, texts, url))]
            process = sweeps.subprocess.Popen(command, **streams)
        wait_for_shards(url, 2, process)
        proxy.send_signal(signal.SIGKILL)
        _, printed = process.communicate(timeout=120)
    assert process.returncode == 74, printed
    errors = [line for line in printed.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(errors) == 2 and f"error: {url}" in errors[0] and "Traceback" not in printed
    assert 2 <= committed(url) < sum(name.endswith(".h5") for name in in_directory) - 3
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    assert kept(url) == in_directory


def test_another_sweep_is_refused_by_its_url(tiny, texts, url, capsys):
    assert sweeps.run_cli(*words(tiny, texts, url)) == 0
    capsys.readouterr()
    printed = sweeps.refused(capsys, 2, *words(tiny, texts, url), "--limit", "1000")
    assert f"error: {url}/RUN.json is of another run" in printed


@pytest.mark.parametrize(
    "command",
    [
        ("repair", "s3://bucket/run"),
        ("verify", "s3://bucket/run", "--untrusted"),
        ("probe", "s3://bucket/run"),
        ("ablate", "s3://bucket/run"),
        ("ablate", "gpt2", "--corpus", "x.txt", "--out", "s3://bucket/run"),
        ("run", "--out", "s3://bucket/run", "--distributed", "ray"),
    ],
)
def test_what_needs_a_directory_says_so(capsys, command):
    printed = sweeps.refused(capsys, 2, *command)
    assert "object stores" in printed


def test_a_mounted_bucket_is_refused(tiny, texts, tmp_path, monkeypatch, capsys):
    table = tmp_path / "mounts"
    table.write_text(f"bucket {tmp_path}/mounted fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(mounts, "TABLE", table)
    out = tmp_path / "mounted" / "run"
    for name in ("run", "tokenize"):
        flags = ("--model", tiny, "--corpus", texts, "--out", out)
        printed = sweeps.refused(capsys, 2, name, *flags)
        assert "gcsfuse" in printed and "--out s3://BUCKET/FOLDER" in printed
    assert not out.parent.exists()


def test_without_obstore_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    printed = sweeps.refused(capsys, 66, "verify", "s3://bucket/run")
    assert "obstore" in printed and ".[objects]" in printed
