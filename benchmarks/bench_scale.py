"""What many shards and many workers cost: the store's own code in a real folder, time simulated.

python benchmarks/bench_scale.py store [--shards 100000] [--folder DIR]
python benchmarks/bench_scale.py workers [--workers 1 10 100 1000] [--each 100]

``store`` makes a run of so many small shards and times what looks at all of them. ``workers``
simulates workers that commit shards to a real folder: what they do to the folder is what a sweep
does, and takes the time that it takes; only the computation of a shard is a number of seconds.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import heapq
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import harness
import numpy as np

from jaxlens import config, schema
from jaxlens.files import system
from jaxlens.store import commit, layout, records, run_directory, segments, shards
from jaxlens.store.hdf5 import images
from jaxlens.sweep import claims
from jaxlens.sweep.distributed import ledger
from jaxlens.tally import definitions

LAYERS, VOCAB_SIZE, ROWS = ("input", "h.0", "h.1"), 101, 4
SHARD_SECONDS = 60.0
"""What a worker of usual speed takes for a shard."""

SLOW_SHARE, SLOWNESS = 0.05, 3.0
LIFETIME, PAUSE = 150 * SHARD_SECONDS, 8 * SHARD_SECONDS
"""Mean time between preemptions of a worker, and how long it takes to come back."""


DIES = -1
"""In the place of a shard: the worker is preempted while it computes."""


class UnsyncedDisk(system.Disk):
    """The workers of a simulation share one disk, which must not wait for each of them."""

    def fsync(self, descriptor: int) -> None:
        """Does nothing."""

    def fsync_directory(self, path: str) -> None:
        """Does nothing."""


DISK = UnsyncedDisk()


def main() -> None:
    """Prints one of the tables and records it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=["store", "workers"])
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to be measured")
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--policies", nargs="+", default=["fixed", "auto", "pull"])
    parser.add_argument("--each", type=int, default=100, help="shards a worker")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = pathlib.Path(name)
        if given.table == "store":
            harness.record("bench_scale_store", store(folder, given.shards))
        else:
            simulated = [
                simulate(folder / f"{workers}-{policy}", policy, workers, given.each)
                for workers in given.workers
                for policy in given.policies
            ]
            harness.record("bench_scale_workers", {"simulated": simulated})


# --------------------------------------------------------------------------- many shards


def store(folder: pathlib.Path, n_shards: int) -> dict[str, Any]:
    """Times what looks at all shards of a run, each in a process of its own.

    Returns:
        Seconds (wall and CPU) and MiB (more than the interpreter with its imports) by action.
    """
    out = folder / "run"
    began = time.perf_counter()
    write(out, n_shards)
    print(f"{n_shards} shards written in {time.perf_counter() - began:.0f} s")
    calls = system_calls(out)
    print(f"{calls:.2f} system calls a shard, without segments")
    actions = ("missing", "finalize", "missing", "finalize", "open_run", "verify_fast")
    table: dict[str, Any] = {"shards": n_shards, "system_calls": calls, "actions": []}
    for number, action in enumerate(actions):
        when = "without segments" if number < 2 else "with segments"
        measured = in_process_of_its_own(action, out) | {"action": action, "when": when}
        table["actions"].append(measured)
        print(
            f"{action:12} {when:16} {measured['wall']:8.2f} s {measured['cpu']:8.2f} CPU s "
            f"{measured['mib']:6.0f} MiB"
        )
    return table


def write(out: pathlib.Path, n_shards: int) -> None:
    """Commits shards that differ in their places alone."""
    spec = spec_bytes(n_shards)
    run_directory.create_run(out, spec, DISK)
    random_rows = np.random.default_rng(0)
    sizes = {"layer": len(LAYERS), "k": 1}
    rows = {}
    for name in schema.CORE:
        dtype = np.dtype(schema.stored_dtype(name, "core", VOCAB_SIZE))
        shape = tuple(sizes.get(axis, ROWS) for axis in schema.QUANTITIES[name].axes)
        rows[name] = random_rows.integers(0, 3, shape).astype(dtype)
    tallies = {
        tally.name: np.zeros(definitions.shape(tally, len(LAYERS), VOCAB_SIZE), np.int64)
        for tally in definitions.BASIC
    }
    for shard in range(n_shards):
        image = images.shard_image(place(spec, shard), rows, tallies, LAYERS)
        commit.publish_shard(out, place(spec, shard), image, ROWS, DISK)


def system_calls(out: pathlib.Path) -> float:
    """Calls of the operating system that a look at a segment without stored records takes."""
    count = collections.Counter[str]()
    originals = {name: getattr(os, name) for name in ("open", "read", "fstat", "stat", "close")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            count[name] += 1
            return originals[name](*given, **options)

        return call

    spec = layout.read_spec(out)
    for name in originals:
        setattr(os, name, counted(name))
    try:
        scan = segments.scan_segment(out, 0, spec.n_shards, spec.hash, trusting=False)
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
    return count.total() / len(scan.table)


ACTIONS = """
import sys, time, resource
from jaxlens.store import finalize, layout, reader, shards, verify
out = sys.argv[2]
spec = layout.read_spec(out)
def missing(): return shards.missing_shards(out, spec.n_shards, spec.hash, "fast")
def open_run(): return reader.open_run(out)
def verify_fast(): return verify.verify(out, "fast")
act = {"missing": missing, "finalize": lambda: finalize.finalize(out), "open_run": open_run,
       "verify_fast": verify_fast}[sys.argv[1]]
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
kept = act()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kib) / 1024)
"""


def in_process_of_its_own(action: str, out: pathlib.Path) -> dict[str, Any]:
    """Wall and CPU seconds of an action, and by how many MiB it makes the process larger."""
    command = [sys.executable, "-c", ACTIONS, action, os.fspath(out)]
    printed = subprocess.check_output(command, text=True)
    wall, cpu, mib = map(float, printed.split())
    return {"wall": wall, "cpu": cpu, "mib": mib}


def spec_bytes(n_shards: int) -> bytes:
    """Bytes of ``RUN.json``."""
    architecture = {"n_layer": len(LAYERS) - 1, "vocab_size": VOCAB_SIZE}
    return config.canonical(
        {
            "plan": {"n_shards": n_shards},
            "store": {"rows": "core", "shard_tokens": ROWS},
            "model": {"architecture": architecture},
        }
    )


def place(spec: bytes, shard: int) -> records.ShardRange:
    """Where a shard belongs."""
    return records.ShardRange(
        spec_hash=config.spec_hash(spec),
        shard=shard,
        token_start=shard * ROWS,
        token_stop=(shard + 1) * ROWS,
        tokens_sha256=hashlib.sha256(b"tokens").hexdigest(),
    )


# --------------------------------------------------------------------------- many workers


@dataclass
class Folder:
    """A run directory of the simulation.

    Attributes:
        out: Where it is.
        spec: Bytes of its ``RUN.json``.
        n_shards: Shards of its plan.
        seconds: Real time that was spent in it since the clock was last read.
        total: The same, never reset.
    """

    out: pathlib.Path
    spec: bytes
    n_shards: int
    seconds: float = 0.0
    total: float = 0.0

    def timed(self, act: Callable[[], Any]) -> Any:
        """Does what a worker does to the folder, and takes its time."""
        began = time.perf_counter()
        result = act()
        spent = time.perf_counter() - began
        self.seconds += spent
        self.total += spent
        return result

    def missing(self) -> list[int]:
        """Shards that the run lacks, as a worker finds out that starts."""
        spec_hash = config.spec_hash(self.spec)
        return self.timed(lambda: shards.missing_shards(self.out, self.n_shards, spec_hash, "fast"))

    def absent(self) -> list[int]:
        """Shards without files, as a worker finds out that looks for more to do."""
        return self.timed(lambda: shards.absent_shards(self.out, self.n_shards))

    def is_committed(self, shard: int) -> bool:
        """Whether a shard is there."""

        def look() -> bool:
            try:
                shards.check(self.out, shard, config.spec_hash(self.spec), "fast")
            except Exception:
                return False
            return True

        return self.timed(look)

    def commit(self, shard: int) -> None:
        """Publishes a shard; its bytes are no HDF5 file, which nothing here opens."""
        image = memoryview(b"%08d" % shard)
        self.timed(lambda: commit.publish_shard(self.out, place(self.spec, shard), image, 0, DISK))

    def clock(self) -> float:
        """Seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Simulation:
    """Workers of different speeds, which are preempted now and then and come back.

    Args:
        folder: What they share.
        policy: ``fixed`` shares, ``auto`` (take over what others lack) or ``pull`` (leases).
        workers: How many.
        seed: Of speeds and preemptions.
    """

    def __init__(self, folder: Folder, policy: str, workers: int, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.folder, self.policy, self.workers = folder, policy, workers
        usual = [self.chance.uniform(0.9, 1.1) for _ in range(workers)]
        self.speed = [v / SLOWNESS if self.chance.random() < SLOW_SHARE else v for v in usual]
        self.dies = [self.chance.expovariate(1 / LIFETIME) for _ in range(workers)]
        self.left = set(range(folder.n_shards))
        self.computed, self.end = 0, 0.0
        self.ledger = ledger.Ledger(dict.fromkeys(range(folder.n_shards), 1))
        self.names = [f"{worker}" for worker in range(workers)]
        self.events: list[tuple[float, int, int, int | None]] = []
        self.idle: set[int] = set()
        self.now, self.number = 0.0, 0

    def run(self) -> dict[str, float]:
        """How much longer than an ideal order it takes, and the share computed twice."""
        orders = [self.order(worker) for worker in range(self.workers)]
        for worker in range(self.workers):
            self.next(worker, orders)
        while self.left:
            self.now, _, worker, shard = heapq.heappop(self.events)
            if shard == DIES:
                self.die(worker)
            else:
                if shard is None:
                    orders[worker] = self.order(worker)
                else:
                    self.finish(worker, shard)
                self.next(worker, orders)
            for idle in sorted(self.idle) if self.policy == "pull" else ():
                self.next(idle, orders)
        available = LIFETIME / (LIFETIME + PAUSE)
        ideal = self.folder.n_shards * SHARD_SECONDS / sum(self.speed) / available
        return {
            "of_ideal": self.end / ideal,
            "twice": self.computed / self.folder.n_shards - 1,
            "folder_seconds_a_shard": self.folder.total / self.folder.n_shards,
        }

    def order(self, worker: int) -> Iterator[int]:
        """The shards of a worker, each decided when it is asked for."""
        if self.policy == "pull":
            return self.pulled(worker)
        missing = self.folder.missing()
        if self.policy == "fixed":
            return iter([shard for shard in missing if shard % self.workers == worker])
        looks = self.folder.is_committed, self.folder.absent
        return claims.claim(missing, worker, self.workers, *looks)

    def pulled(self, worker: int) -> Iterator[int]:
        """The shards of one lease after the other."""
        while True:
            lease = self.ledger.lease(self.names[worker], self.workers, self.now)
            if not lease:
                return
            yield from lease
            done = [shard for shard in lease if shard not in self.left]
            self.ledger.settle(self.names[worker], done, self.now)

    def finish(self, worker: int, shard: int) -> None:
        """Commits a shard that was computed."""
        self.folder.commit(shard)
        self.computed += 1
        if shard in self.left:
            self.left.remove(shard)
            self.end = self.now

    def die(self, worker: int) -> None:
        """A worker is preempted, and starts again after a pause; who leases, hears of it."""
        if self.policy == "pull":
            held = self.ledger.leased(self.names[worker])
            done = [shard for shard in held if shard not in self.left]
            self.ledger.lose(self.names[worker], done, is_suspicious=False)
            self.names[worker] += "'"
        self.dies[worker] = self.now + PAUSE + self.chance.expovariate(1 / LIFETIME)
        self.push(self.now + PAUSE, worker, None)

    def push(self, then: float, worker: int, shard: int | None) -> None:
        """Lets something happen to a worker."""
        self.number += 1
        heapq.heappush(self.events, (then, self.number, worker, shard))

    def next(self, worker: int, orders: list[Iterator[int]]) -> None:
        """Lets a worker begin its next shard."""
        self.idle.discard(worker)
        self.folder.clock()
        shard = next(orders[worker], None)
        if shard is None:
            self.idle.add(worker)
            if self.policy == "pull":
                orders[worker] = self.order(worker)
            return
        noise = self.chance.uniform(0.95, 1.05)
        then = self.now + self.folder.clock() + noise * SHARD_SECONDS / self.speed[worker]
        if then > self.dies[worker]:
            then, shard = max(self.now, self.dies[worker]), DIES
        self.push(then, worker, shard)


def simulate(out: pathlib.Path, policy: str, workers: int, each: int) -> dict[str, Any]:
    """One row of the table."""
    spec = spec_bytes(workers * each)
    run_directory.create_run(out, spec, DISK)
    folder = Folder(out, spec, workers * each)
    row = {"workers": workers, "policy": policy, "each": each}
    row |= Simulation(folder, policy, workers).run()
    assert folder.missing() == []
    print(
        f"{workers:5} workers, {policy:6} {row['of_ideal']:6.3f} of ideal, "
        f"{row['twice']:6.2%} twice, {1e3 * row['folder_seconds_a_shard']:.2f} ms a shard "
        "in the folder",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
