"""Rival processes write each of several runs at the same time.

``python race.py FOLDER RACES RIVALS SALTED`` prints how many processes failed. They are forked from
this one, which has h5py loaded but neither jax nor a thread. With SALTED 1 each computes other bits
than the rest, and nobody finishes the run.
"""

import os
import sys
from pathlib import Path

from store import example

SHARDS, ROWS = 2, 8


def main(folder, races, rivals, salted):
    salts = range(rivals) if salted else [0] * rivals
    for salt in set(salts):  # computed here once, so that the rivals meet at writing
        for shard in range(SHARDS):
            example.shard_image(example.spec(SHARDS, ROWS), shard, SHARDS, ROWS, salt=salt)
    failed = 0
    for number in range(races):
        gate, opener = os.pipe()
        out = folder / str(number)
        children = [rival(out, gate, opener, salt, not salted) for salt in salts]
        os.close(gate)
        os.close(opener)
        failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(failed)


def rival(out, gate, opener, salt, finish):
    child = os.fork()
    if child:
        return child
    os.close(opener)
    os.read(gate, 1)  # returns when the parent opens the gate for all
    try:
        if finish:
            example.write_run(out, SHARDS, ROWS)
        else:
            example.write_shards(out, SHARDS, ROWS, salt=salt)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
