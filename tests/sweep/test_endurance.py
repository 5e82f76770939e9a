"""The real command line, killed again and again, and kept busy for long; see `make test-long`."""

import json
import os
import pathlib
import random
import signal
import sys
import time

import numpy as np
import pytest
from random_model import random_params
from sweeps import PACKAGED, TINY, digest, start

from jaxlens import models
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import verify

JOBS = 20
SOAK_TOKENS = 10_000_000
MAX_SLOPE = 1.0
"""Mebibytes by which memory may grow in a million tokens."""

KIBIBYTES_A_MEBIBYTE = 1024


def wait_for_a_random_moment(chance, process, out, seconds):
    """Any time of a run's life; or, every other time, just when it writes its shards."""
    ends = time.monotonic() + chance.uniform(0, 0.95) * seconds
    shards = chance.choice([0, chance.randint(1, 4)])
    while process.poll() is None and time.monotonic() < ends + seconds * bool(shards):
        if shards and len(list(out.glob("shards/*.h5"))) >= shards:
            time.sleep(chance.uniform(0, 0.3))
            return
        time.sleep(0.002)


@pytest.mark.long
def test_twenty_runs_killed_at_random_moments_end_bit_identical(tmp_path):
    command = ("run", "--limit", "20k", "--out")
    for name in ("first", "whole"):  # the second finds the step compiled, as all others do
        began = time.monotonic()
        assert start(*command, tmp_path / name).wait() == 0
        seconds = time.monotonic() - began
    expected = digest(tmp_path / "whole")
    chance, kills, between, identical = random.Random(20), 0, 0, 0
    for job in range(JOBS):
        out, killed, finished = tmp_path / str(job), 0, False
        while not finished:
            process = start(*command, out)
            if killed == 0 or chance.random() < 0.5:
                wait_for_a_random_moment(chance, process, out, seconds)
                process.send_signal(signal.SIGKILL)
            status = process.wait()
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
            between += status != 0 and any(out.glob("shards/*.h5"))
            finished = status == 0
        assert killed, "it was too quick to be killed"
        kills += killed
        identical += digest(out) == expected and verify.verify(out).ok
    print(f"{JOBS} runs, {kills} kills, {between} of them amid the shards, {identical} identical")
    assert identical == JOBS
    assert between >= JOBS / 4


@pytest.fixture
def smallest(tmp_path):
    """A model of one block."""
    config = TINY | {"n_layer": 1, "n_positions": 256}
    folder = tmp_path / "smallest"
    parsed = models.parse(config)
    checkpoint.save(
        folder, parsed, random_params(config, 0), "safetensors", tokenizer_from=PACKAGED
    )
    return folder


def write_corpus(path, n_tokens):
    """Documents of many lengths, some of them empty; of the packaged vocabulary's words."""
    chance = random.Random(1)
    words = [chance.choice("aeiou") + "".join(chance.choices("nrst", k=3)) for _ in range(3000)]
    with path.open("w") as file:
        written = 0
        while written < n_tokens:
            length = chance.choice([0, 5, 100, 700, 3000])
            written += length  # a word is at least one token
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=length))}) + "\n")


def look_at(pid):
    """Resident KiB and open descriptors of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]), len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_million_tokens_take_no_more_memory_or_descriptors_than_one(tmp_path, smallest):
    corpus, out = tmp_path / "texts.jsonl", tmp_path / "out"
    write_corpus(corpus, SOAK_TOKENS)
    settings = ("store.shard_tokens=65536", "plan.step_sequences=32")
    more = [part for setting in settings for part in ("--set", setting)]
    process = start(
        *("run", "--model", smallest, "--corpus", corpus, "--out", out, "--rows", "core"),
        *("--limit", SOAK_TOKENS, *more),
    )
    samples = []
    while process.poll() is None:
        time.sleep(0.25)
        try:
            done = len(list((out / "shards").glob("part-*.h5"))) * 65536
            samples.append((done, *look_at(process.pid)))
        except (OSError, StopIteration):
            continue  # it has ended
    assert process.wait() == 0
    swept = [s for s in samples if 0.15 * SOAK_TOKENS < s[0] < 0.97 * SOAK_TOKENS]
    assert len(swept) > 100
    tokens, resident, descriptors = np.array(swept).T
    slope = np.polyfit(tokens / 1e6, resident / KIBIBYTES_A_MEBIBYTE, 1)[0]
    print(f"{len(swept)} samples, slope {slope:.3f} MiB, descriptors {set(descriptors.tolist())}")
    assert slope < MAX_SLOPE
    # A shard being published holds one more, and its directory another.
    assert descriptors.max() - descriptors.min() <= 2
