"""Kills a process that writes a run, at random moments, until it has been killed often enough.

``python kill_loop.py FOLDER KILLS INSIDE SEED`` goes on until there were so many kills, and so many
of them left a file half written. It prints the kills, the runs that reached their end, the kills
amid a file, the wrong trees and the failures. Each writer is forked from this process, which has
h5py loaded but neither jax nor a thread.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from store import example

from jaxlens.files import system, temporary
from jaxlens.store import verify

SHARDS, ROWS = 4, 8
MAX_RUNS = 200


def start(out):
    child = os.fork()
    if child:
        return child
    try:
        example.write_run(out, SHARDS, ROWS, disk=system.DISK)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def killed_after(out, seconds):
    """Whether a writer died by the kill, and its exit status if it did not."""
    child = start(out)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status)


def half_written(out):
    folders = (out, out / "shards", out / "tokens")
    names = (name for folder in folders if folder.is_dir() for name in os.listdir(folder))
    return any(temporary.is_temporary(name) for name in names)


def main(folder, kills, amid, seed):
    chance = random.Random(seed)
    # Computed here once, so that the writers spend their lives writing.
    for shard in range(SHARDS):
        example.shard_image(example.spec(SHARDS, ROWS), shard, SHARDS, ROWS)
    example.token_index(SHARDS * ROWS)
    began = time.perf_counter()
    os.waitpid(start(folder / "whole"), 0)
    patience = time.perf_counter() - began
    expected = example.tree(folder / "whole")
    killed = runs = inside = wrong = failed = 0
    while (killed < kills or inside < amid) and runs < MAX_RUNS:
        out, died = folder / str(runs), True
        while died:
            died, status = killed_after(out, chance.uniform(0, patience))
            killed += died
            patience *= 1.1 if died else 0.4  # some ten kills a run, however slow the machine is
            inside += died and half_written(out)
            failed += not died and status != 0
        wrong += example.tree(out) != expected or not verify.verify(out).ok
        shutil.rmtree(out)
        runs += 1
    print(killed, runs, inside, wrong, failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
