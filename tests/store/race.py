"""Three processes write each of several runs at the same time.

``python race.py FOLDER RACES`` prints how many processes failed. They are forked from this one,
which has h5py loaded but neither jax nor a thread.
"""

import os
import sys
from pathlib import Path

from store import example

RIVALS, SHARDS, ROWS = 3, 2, 8


def main(folder, races):
    failed = 0
    for number in range(races):
        gate, opener = os.pipe()
        children = [rival(folder / str(number), gate, opener) for _ in range(RIVALS)]
        os.close(gate)
        os.close(opener)
        failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(failed)


def rival(out, gate, opener):
    child = os.fork()
    if child:
        return child
    os.close(opener)
    os.read(gate, 1)  # returns when the parent opens the gate for all
    try:
        example.write_run(out, SHARDS, ROWS)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
