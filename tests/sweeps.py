"""Sweeps for tests: a tiny model, a small corpus, a finished run, and ways to make others."""

import fcntl
import hashlib
import json
import os
import pathlib
import pydoc_data.topics
import random
import subprocess
import sys

import jax
import numpy as np
import pytest
from random_model import random_params

import jaxlens
from jaxlens import config, models
from jaxlens.cli import main
from jaxlens.models.checkpoints import checkpoint
from jaxlens.sweep import run

PACKAGED = pathlib.Path(jaxlens.__file__).parent / "models" / "packaged"
TINY = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 8,
    "vocab_size": 4096,
    "n_positions": 32,
    "bos_token_id": 0,
}


def once(tmp_path_factory, name, make):
    """A folder that one process of the suite makes and all of them read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # workers have folders of their own in a common one
        root = root.parent
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(root / f"{name}.part")
            (root / f"{name}.part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model that compiles in a second, with the packaged tokenizer."""

    def make(folder):
        params = random_params(TINY, 0)
        parsed = models.parse(TINY)
        checkpoint.save(folder, parsed, params, "safetensors", tokenizer_from=PACKAGED)

    return once(tmp_path_factory, "tiny", make)


def save_between(folder, share):
    """A checkpoint in the format of `tiny`, between other random weights (0) and its own (1)."""
    mixed = jax.tree.map(
        lambda other, own: other * np.float32(1 - share) + own * np.float32(share),
        random_params(TINY, 5),
        random_params(TINY, 0),
    )
    checkpoint.save(folder, models.parse(TINY), mixed, "safetensors", tokenizer_from=PACKAGED)


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Documents of many lengths, an empty one and a malformed line among them."""

    def make(folder):
        folder.mkdir()
        (folder / "texts.jsonl").write_text("\n".join(_lines()) + "\n")

    return once(tmp_path_factory, "corpus", make) / "texts.jsonl"


def _lines():
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "while",
        "it",
        "rains",
        "in",
        "the",
        "old",
        "town",
    ]
    chosen = random.Random(0)
    lines = []
    for number in range(60):
        text = " ".join(chosen.choices(words, k=chosen.choice([1, 5, 30, 70, 200])))
        lines.append(json.dumps({"id": f"d{number}", "text": text}))
    lines[7] = '{"text": "broken'
    lines[11] = '{"text": "  "}'
    return lines


# Given, so that most sweeps of the tiny model need no pre-pass; `test_temper` is about that.
TEMPERATURES = [2.0, 1.5, 1.0]


def configure(model, corpus, out, **more):
    base = {
        "model.path": str(model),
        "corpus.paths": [str(corpus)],
        "out": None if out is None else str(out),
        "plan.step_sequences": 4,
        "store.shard_tokens": 512,
        "lens.tile": 512,
        "lens.block": 50,
        "devices": 1,
        "lens.temperatures": TEMPERATURES if pathlib.Path(model).name == "tiny" else None,
    }
    merged = {key: value for key, value in (base | more).items() if value is not None}
    return config.load([], {}, merged)


@pytest.fixture(scope="session")
def swept(tiny, texts, tmp_path_factory):
    """A finished run; who changes it copies it first."""

    def make(folder):
        assert run.run(configure(tiny, texts, folder)).finished

    return once(tmp_path_factory, "swept", make)


# Few shards: each of them holds megabytes of tallies. All of one step, which is compiled once, and
# of one update of the tallies, which is also that of rows with all that they are made from.
STUDY = {
    "store.tallies": "study",
    "store.rows": "none",
    "store.shard_tokens": 2048,
    "store.quantities": ["js_final", "js_input"],
}


# Rows of everything that these tallies are made from; a later window repeats some context.
EVERYTHING = {
    "store.tallies": "study",
    # Those of STUDY, and rows.
    "store.quantities": ["norm", "retention", "retention_foreign", "js_final", "js_input"],
    "store.shard_tokens": 512,
    "plan.overlap": 5,
}


@pytest.fixture(scope="session")
def studied(tiny, texts, tmp_path_factory):
    """A trained run, two of fresh weights, one of shuffled text; who adds to them copies them."""
    ways = {
        "trained": {},
        "random-1": {"null": "random-init", "seed": 1},
        "random-2": {"null": "random-init", "seed": 2},
        "shuffled": {"null": "shuffled", "seed": 1},
    }

    def make(folder):
        for name, how in ways.items():
            run.run(configure(tiny, texts, folder / name, **STUDY, **how))

    return once(tmp_path_factory, "studied", make)


@pytest.fixture(scope="session")
def decoded(tiny, texts, tmp_path_factory):
    """Runs of another decoder, for the study: a trained one, one of fresh weights."""
    plain = STUDY | {"lens.decoder": "plain"}

    def make(folder):
        run.run(configure(tiny, texts, folder / "trained", **plain))
        fresh = {"null": "random-init", "seed": 1}
        run.run(configure(tiny, texts, folder / "random-1", **plain, **fresh))

    return once(tmp_path_factory, "decoded", make)


STEPS = {0: 0.0, 1000: 0.5, 143_000: 0.9}
"""Training steps of `checkpointed`, and how near their weights are to those of `tiny`."""


@pytest.fixture(scope="session")
def checkpointed(tmp_path_factory):
    """Runs of three checkpoints over one text; who adds to them copies them."""

    def make(folder):
        folder.mkdir()
        topics = sorted(pydoc_data.topics.topics.items())
        text = "\n".join(json.dumps({"text": text[:300]}) for _, text in topics[:80])
        (folder / "texts.jsonl").write_text(text + "\n")
        for step, share in STEPS.items():
            model = folder / "models" / f"step{step}"
            save_between(model, share)
            how = {"lens.temperatures": TEMPERATURES, "corpus.limit": 6_000}
            run.run(configure(model, folder / "texts.jsonl", folder / str(step), **STUDY, **how))

    return once(tmp_path_factory, "checkpointed", make)


def digest(folder, derived=True):
    """Hashes of everything that must be equal between two runs of one spec."""
    names = [*sorted(folder.glob("shards/*")), folder / "RUN.json"]
    if derived:
        # Runs of many shards have no index.h5; one that has it differs from one that has not.
        names += [folder / "MANIFEST", folder / "summary.h5", *folder.glob("index.h5")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def run_cli(*arguments):
    """The real command line in this process: exit code."""
    try:
        main.main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


TILES = ("--set", "lens.tile=512", "--set", "lens.block=50")


def flags(tiny, texts, out):
    how = (*TILES, "--set", "store.shard_tokens=512", "--set", "plan.step_sequences=4")
    if pathlib.Path(tiny).name == "tiny":
        how += ("--set", f"lens.temperatures={TEMPERATURES}")
    return ("run", "--model", tiny, "--corpus", texts, "--out", out, *how)


def start(*arguments, ignoring="", **streams):
    """The command line in a process of its own, which may ignore a signal as under nohup."""
    shell = ["sh", "-c", f'trap "" {ignoring}; exec "$@"', "sh"] if ignoring else []
    command = [*shell, sys.executable, "-m", "jaxlens", *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet | streams)


def refused(capsys, code, *arguments):
    """Runs the command line, and checks the shape of the refusal; returns its two lines."""
    assert run_cli(*arguments) == code, capsys.readouterr().err
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], printed.err
    assert "Traceback" not in printed.err
    return " ".join(lines)


def script_with_small_files(size):
    """Code that runs the command line where files may not grow beyond a size, as on a full disk.

    Python too would leave truncated bytecode behind, for every later process to find.
    """
    return (
        "import resource, signal, sys\n"
        "sys.dont_write_bytecode = True\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import jaxlens.cli.main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "jaxlens.cli.main.main(sys.argv[1:])\n"
    )
