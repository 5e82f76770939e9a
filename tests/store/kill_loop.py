"""Kills a process that writes a run, at random moments, until it has been killed often enough.

``python kill_loop.py FOLDER KILLS SEED`` prints the kills, the runs and the wrong trees. Each
writer is forked from this process, which has h5py loaded but neither jax nor a thread.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from store import example

from jaxlens.store import system, verify

SHARDS, ROWS = 6, 8


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


def main(folder, kills, seed):
    chance = random.Random(seed)
    began = time.perf_counter()
    os.waitpid(start(folder / "whole"), 0)
    longest = time.perf_counter() - began
    expected = example.tree(folder / "whole")
    killed = runs = wrong = failed = 0
    while killed < kills:
        out, runs = folder / str(runs), runs + 1
        finished = False
        while not finished:
            child = start(out)
            time.sleep(chance.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed += os.WIFSIGNALED(status)
            finished = os.WIFEXITED(status)
            failed += finished and os.WEXITSTATUS(status) != 0
        wrong += example.tree(out) != expected or not verify.verify(out).ok
    print(killed, runs, wrong, failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
