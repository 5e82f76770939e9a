"""Simulated workers that commit to a real folder; only the computation of a shard takes no time."""

from __future__ import annotations

import heapq
import pathlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import small_run

from jaxlens import config
from jaxlens.store import commit, run_directory, shards
from jaxlens.sweep import claims
from jaxlens.sweep.distributed import ledger

SHARD_SECONDS = 60.0
"""What a worker of usual speed takes for a shard."""

SLOW_SHARE, SLOWNESS = 0.05, 3.0
LIFETIME, PAUSE = 150 * SHARD_SECONDS, 8 * SHARD_SECONDS
"""Mean time between preemptions of a worker, and how long it takes to come back."""


DIES = -1
"""In the place of a shard: the worker is preempted while it computes."""


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
        self.timed(
            lambda: commit.publish_shard(
                self.out, small_run.place(self.spec, shard), image, 0, small_run.DISK
            )
        )

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
    spec = small_run.spec_bytes(workers * each)
    run_directory.create_run(out, spec, small_run.DISK)
    folder = Folder(out, spec, workers * each)
    row: dict[str, Any] = {"workers": workers, "policy": policy, "each": each}
    row |= Simulation(folder, policy, workers).run()
    assert folder.missing() == []
    print(
        f"{workers:5} workers, {policy:6} {row['of_ideal']:6.3f} of ideal, "
        f"{row['twice']:6.2%} twice, {1e3 * row['folder_seconds_a_shard']:.2f} ms a shard "
        "in the folder",
        flush=True,
    )
    return row
