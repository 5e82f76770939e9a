"""Rival writers in every order: threads that take turns at each step the others can see.

A writer's temporary file is its own, so only renames, links and the opening of files are steps;
everything else would multiply the orders and change none.
"""

import contextlib
import functools
import shutil
import threading
from collections.abc import Callable, Iterator

from store import example

from jaxlens import config, errors
from jaxlens.files import contained
from jaxlens.store import commit, layout, records, run_directory, shards

SEEN = ("rename", "link")
DEADLINE = 60.0
SPEC = example.spec(1, 8)
HASH = config.spec_hash(SPEC)
PLACE = example.place(SPEC, 0, 1, 8)
BITS = [letter * 500 for letter in (b"a", b"b", b"c")]
"""What rivals make of one shard; of one size, so that only the hash tells them apart."""


def opaque(monkeypatch):
    """Makes any bytes a shard: what is looked at here is the hash."""

    class Sound:
        def close(self):
            pass

    def open_shard(run_dir, entry, hashed=True):
        path = layout.shard_path(run_dir, entry.shard)
        with contained.opened(path) as descriptor:
            if contained.sha256(path, descriptor) != entry.sha256:
                raise errors.DataError(f"{path} is damaged")
        return Sound()

    monkeypatch.setattr(shards, "open_shard", open_shard)


def prepare(out, before):
    """A run that begins with the remains of another writer, or with none."""
    shutil.rmtree(out, ignore_errors=True)
    run_directory.create_run(out, SPEC, example.FAST)
    if before in ("record", "damaged"):
        entry = records.record(PLACE, 8, b"x" * 500)
        layout.sidecar_path(out, 0).write_bytes(records.encode(entry))
    if before in ("shard", "damaged"):
        layout.shard_path(out, 0).write_bytes(b"y" * 500)


def writer(out, bits):
    """A job that commits the run's only shard."""
    return lambda disk: commit.publish_shard(out, PLACE, memoryview(bits), 8, disk)


class Killed(BaseException):
    """Stands for a process that is gone."""


class Writer(threading.Thread):
    """A job that waits for its turn before each step."""

    def __init__(self, job, steps, under):
        super().__init__(daemon=True)
        self.job, self.steps, self.under = job, steps, under
        self.go, self.waits = threading.Semaphore(0), threading.Semaphore(0)
        self.over = self.killed = False
        self.outcome = None

    def run(self):
        self.pause()
        try:
            self.outcome = self.job(turn_taking(self.steps, self.under))
        except BaseException as error:
            self.outcome = error
        self.over = True
        self.waits.release()

    def pause(self):
        if not self.killed:
            self.waits.release()
            assert self.go.acquire(timeout=DEADLINE)

    def step(self):
        self.pause()
        if self.killed:
            raise Killed

    def advance(self):
        self.go.release()
        assert self.waits.acquire(timeout=DEADLINE)


def pause():
    """A step of the current thread, if it is a writer's."""
    writer = threading.current_thread()
    if isinstance(writer, Writer):
        writer.step()


def turn_taking(steps, under):
    """A disk at whose ``steps`` a writer waits for its turn."""
    disk = type("TurnTaking", (type(under),), {})()
    for name in steps:
        setattr(disk, name, functools.partial(pause_and, getattr(under, name)))
    return disk


def pause_and(act, *arguments):
    pause()
    return act(*arguments)


@contextlib.contextmanager
def pausing_reads():
    """Makes the opening of a file a step as well."""
    opened = contained.opened

    @contextlib.contextmanager
    def pausing(path):
        pause()
        with opened(path) as descriptor:
            yield descriptor

    contained.opened = pausing
    try:
        yield
    finally:
        contained.opened = opened


def play(jobs, choose: Callable[[list[int]], int], steps=SEEN, kill=None, under=example.FAST):
    """Runs jobs in one order.

    Args:
        jobs: Each is called with a disk.
        choose: Picks one of the writers that are not done, given their numbers.
        steps: Calls of the disk before which a writer waits.
        kill: Writer and its step at which it dies.
        under: What carries out the calls.

    Returns:
        What each job returned or raised.
    """
    writers = [Writer(job, steps, under) for job in jobs]
    for writer in writers:
        writer.start()
        assert writer.waits.acquire(timeout=DEADLINE)
    taken = [0] * len(writers)
    while alive := [number for number, writer in enumerate(writers) if not writer.over]:
        number = choose(alive)
        writers[number].killed = kill == (number, taken[number])
        taken[number] += 1
        writers[number].advance()
    for writer in writers:
        writer.join(DEADLINE)
    return [writer.outcome for writer in writers]


def orders(depth: int) -> Iterator[Callable[[list[int]], int]]:
    """Every way to choose at the first ``depth`` choices; beyond, the first writer goes on."""
    ahead: list[list[int]] = [[]]
    while ahead:
        prefix = ahead.pop()
        choices: list[tuple[int, list[int]]] = []

        def choose(alive, prefix=prefix, choices=choices):
            if len(alive) == 1:
                return alive[0]
            at = len(choices)
            number = prefix[at] if at < len(prefix) else alive[0]
            choices.append((number, alive))
            return number

        yield choose
        for at in range(len(prefix), min(depth, len(choices))):
            begun = [number for number, _ in choices[:at]]
            ahead += [[*begun, other] for other in choices[at][1] if other != choices[at][0]]
