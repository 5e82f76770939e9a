"""Workers that take over from each other: the order alone, simulated, and with real processes."""

import heapq
import os
import random
import signal
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import configure, digest, flags, start

from jaxlens.sweep import claims, run


@dataclass
class Folder:
    """A run directory, and how often it is looked at."""

    left: set
    looks: int = 0
    checks: int = 0

    def is_committed(self, shard):
        self.checks += 1
        return shard not in self.left

    def look_again(self):
        self.looks += 1
        return sorted(self.left)


@dataclass
class Cluster:
    """Workers of different speeds, which are now and then preempted and come back."""

    workers: int
    each: int
    slow: float
    lifetime: float
    seed: int
    steals: bool = True
    pause: float = 8.0
    computed: int = 0
    events: list = field(default_factory=list)

    def __post_init__(self):
        self.chance = random.Random(self.seed)
        self.shards = self.workers * self.each
        self.folder = Folder(set(range(self.shards)))
        speeds = [self.chance.uniform(0.9, 1.1) for _ in range(self.workers)]
        self.speed = [s / 3 if self.chance.random() < self.slow else s for s in speeds]
        self.dies = [self.lives() for _ in range(self.workers)]

    def lives(self):
        return self.chance.expovariate(1 / self.lifetime)

    def begin(self, worker):
        missing = sorted(self.folder.left)
        if not self.steals:
            return iter([shard for shard in missing if shard % self.workers == worker])
        look = self.folder.is_committed, self.folder.look_again
        return claims.claim(missing, worker, self.workers, *look)

    def run(self):
        """How much longer than an ideal order it took, and the share of shards computed twice."""
        orders = [self.begin(worker) for worker in range(self.workers)]
        for worker in range(self.workers):
            self.next(worker, orders, 0.0)
        while self.folder.left:
            now, _, worker, shard = heapq.heappop(self.events)
            if shard is None:
                orders[worker] = self.begin(worker)
            elif shard in self.folder.left:
                self.folder.left.remove(shard)
                end = now
            self.next(worker, orders, now)
        lost = self.lifetime / (self.lifetime + self.pause)
        return end / (self.shards / sum(self.speed) / lost), self.computed / self.shards - 1

    def next(self, worker, orders, now):
        shard = next(orders[worker], None)
        if shard is None:
            return
        then = now + self.chance.uniform(0.95, 1.05) / self.speed[worker]
        if then > self.dies[worker]:
            then, shard = self.dies[worker] + self.pause, None
            self.dies[worker] = then + self.lives()
        else:
            self.computed += 1
        heapq.heappush(self.events, (then, self.computed, worker, shard))


def test_three_hundred_workers_take_little_longer_than_an_ideal_order():
    figures = [
        Cluster(300, 60, slow=0.05, lifetime=150, seed=seed, steals=steals).run()
        for seed in range(2)
        for steals in (True, False)
    ]
    for (taken_over, twice), (fixed, _) in zip(figures[::2], figures[1::2], strict=True):
        assert taken_over < 1.1 and twice < 0.1
        assert fixed > 2.5


def test_the_folder_is_looked_at_a_few_times_a_worker():
    cluster = Cluster(100, 100, slow=0.1, lifetime=200, seed=1)
    cluster.run()
    assert cluster.folder.looks < 8 * cluster.workers
    assert cluster.folder.checks < 1.5 * cluster.shards


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(0, 40), st.data())
def test_whatever_others_commit_all_is_computed_and_nothing_twice_by_one(total, shards, data):
    index = data.draw(st.integers(0, total - 1))
    folder = Folder(set(range(shards)))
    taken = []
    for shard in claims.claim(
        range(shards), index, total, *(folder.is_committed, folder.look_again)
    ):
        assert shard in folder.left
        taken.append(shard)
        others = data.draw(st.sets(st.sampled_from(sorted(folder.left)), max_size=3))
        folder.left -= others | (set(taken) if data.draw(st.booleans()) else set())
    assert folder.left <= set(taken) and len(set(taken)) == len(taken)
    own = [shard for shard in taken if shard % total == index]
    assert own == sorted(own)


def auto(index, count):
    values = {"ID": index, "MIN": 0, "COUNT": count}
    return os.environ | {f"SLURM_ARRAY_TASK_{name}": str(v) for name, v in values.items()}


@pytest.mark.long
def test_two_workers_take_over_from_each_other_to_the_same_bytes(tiny, texts, tmp_path, swept):
    out = tmp_path / "out"
    command = (*flags(tiny, texts, out), "--shard", "auto")
    processes = [start(*command, env=auto(index, 2)) for index in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert digest(out) == digest(swept)


def test_what_a_killed_worker_leaves_is_done_by_another(tiny, texts, tmp_path, swept):
    out = tmp_path / "out"
    command = (*flags(tiny, texts, out), "--shard", "auto")
    killed = start(*command, env=auto(2, 3))
    while killed.poll() is None and not list(out.glob("shards/*.h5")):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert start(*command, env=auto(0, 3)).wait() == 0
    assert digest(out) == digest(swept)


def test_what_others_commit_is_counted(tiny, texts, tmp_path, monkeypatch):
    class Heard:
        def begin(self, total, done):
            self.total, self.done = total, done
            for shard in ("1/4", "2/4"):  # other workers are quick
                run.run(configure(tiny, texts, tmp_path, shard=shard))

        def advance(self, count):
            self.done += count

    for name, value in auto(0, 4).items():
        monkeypatch.setenv(name, value)
    heard = Heard()
    result = run.run(configure(tiny, texts, tmp_path, shard="auto"), heard)
    assert result.finished and result.computed == 5 and result.n_shards == 9
    assert heard.done == heard.total == result.n_tokens


@pytest.mark.long
def test_a_thousand_workers_of_a_hundred_shards():
    taken_over, twice = Cluster(1000, 100, slow=0.05, lifetime=150, seed=0).run()
    print(f"{taken_over:.3f} times the ideal, {twice:.1%} twice")
    assert taken_over < 1.05 and twice < 0.06
