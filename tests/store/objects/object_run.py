"""The small run of ``example.py`` in an object store; also processes that race or are killed.

``object_run.py race URL RACES RIVALS SALTED`` and ``object_run.py kill URL KILLS SEED`` print what
they counted.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from store import example

from jaxlens.store import finalize, layout, run_directory, shards, storage, verify
from jaxlens.store.objects import client, names, urls

SHARDS, ROWS = 4, 8


def write_run(url, n_shards=SHARDS, rows=ROWS, salt=0, finish=True):
    """Begins or resumes a run: shards that it computed, those that stood with other bits."""
    spec_bytes = example.spec(n_shards, rows)
    computed, others = [], []
    with storage.mirrored(url, writable=True) as mirror:
        spec = run_directory.create_run(mirror.path, spec_bytes, mirror.disk)
        if not layout.token_path(mirror.path, layout.TOKEN_RECORD).exists():  # the last of them
            example.publish_tokens(mirror.path, n_shards, rows, mirror.disk)
        for shard in shards.missing_shards(mirror.path, n_shards, spec.hash, "fast"):
            image = example.shard_image(spec_bytes, shard, n_shards, rows, salt=salt)
            where = example.place(spec_bytes, shard, n_shards, rows)
            if mirror.publish_shard(where, memoryview(image), rows) is not None:
                others.append(shard)
            computed.append(shard)
        if finish:
            mirror.refresh()
            finalize.finalize(mirror.path, mirror.disk)
    return computed, others


def connect(url):
    return client.Client(urls.parse(url))


def tree(url):
    """Every object with its bytes; images under the names of files of shards."""
    store, found = connect(url), {}
    for name, _ in list(store.list()):
        if name != names.CREATE_ONLY:
            parsed = names.parse_image(name)
            key = name if parsed is None else layout.shard_file(parsed[0])
            assert key not in found, f"several images of {key}"
            found[key] = store.get(name, 1 << 30)[0]
    return found


def fork(url, **how):
    child = os.fork()
    if child:
        return child
    try:
        write_run(url, **how)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def compute(salts):
    """Computed before the processes fork, so that they spend their lives writing."""
    for salt in salts:
        for shard in range(SHARDS):
            example.shard_image(example.spec(SHARDS, ROWS), shard, SHARDS, ROWS, salt=salt)


def race(url, races, rivals, salted):
    salts = range(rivals) if salted else [0] * rivals
    compute(set(salts))
    failed = 0
    for number in range(races):
        children = [fork(f"{url}/{number}", salt=salt, finish=not salted) for salt in salts]
        failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    print(failed)


def kill(url, kills, seed):
    chance = random.Random(seed)
    compute([0])
    began = time.perf_counter()
    os.waitpid(fork(f"{url}/whole"), 0)
    patience = time.perf_counter() - began
    killed = runs = failed = 0
    while killed < kills:
        died = True
        while died:
            child = fork(f"{url}/{runs}")
            time.sleep(chance.uniform(0.1 * patience, patience))
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            died = status == -signal.SIGKILL
            killed += died
            patience *= 1.1 if died else 0.6
            failed += status > 0
        runs += 1
    # Only now, since a client must not be forked.
    expected = tree(f"{url}/whole")
    wrong = 0
    for number in range(runs):
        found = tree(f"{url}/{number}")
        odd = [name for name in found | expected if found.get(name) != expected.get(name)]
        with storage.readable(f"{url}/{number}") as run:
            odd += verify.verify(run).damaged
        if odd:
            os.write(2, f"{number}: {odd}\n".encode())
        wrong += bool(odd)
    print(killed, runs, wrong, failed)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    {"race": race, "kill": kill}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
