"""Whatever happens to a run, in whatever order: right rows or a refusal, and resuming mends it."""

import functools
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store import example

from jaxlens import errors, schema
from jaxlens.files import temporary
from jaxlens.store import finalize as derive
from jaxlens.store import layout, reader, segments, verify

SHARDS, ROWS = 2, 4


def of_shard(shard):
    return [layout.shard_file(shard), layout.sidecar_file(shard)]


NAMES_OF_SHARDS = [name for shard in range(SHARDS) for name in of_shard(shard)]
NAMES = [
    *("RUN.json", "MANIFEST", "summary.h5", "index.h5"),
    *(f"tokens/{name}" for name in ("TOKENS.json", "tokens.bin", "index.h5")),
    *NAMES_OF_SHARDS,
]
if segments.has_files(SHARDS):  # `test_segments` runs these stories so
    NAMES += [
        "/".join((*layout.segment_parts(layout.segment_of(shard)), name))
        for shard in range(SHARDS)
        for name in segments.FILES
    ]


NAME, PLACE = st.sampled_from(NAMES), st.integers(0, 10**6)


def corrupt(path, _, at):
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1 << at % 8
    path.write_bytes(raw)


def truncate(path, _, at):
    os.truncate(path, at % path.stat().st_size)


def delete(path, *_):
    path.unlink()


def swap(path, other, _):
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


WAYS = [corrupt, truncate, delete, swap]


class Killed(BaseException):
    """The process is gone: nothing that it might still do has an effect."""


class Dying(example.FastDisk):
    """Dies at a call, before or after the call has its effect."""

    def __init__(self, at, after):
        self.left, self.after, self.lock = at, after, threading.Lock()

    def __getattribute__(self, name):
        act = super().__getattribute__(name)
        if name.startswith("_") or not callable(act) or name == "free_bytes":
            return act

        def call(*arguments):
            with self.lock:
                self.left -= 1
                dies = self.left <= 0
                if dies and not (self.after and self.left == 0):
                    raise Killed
            done = act(*arguments)
            if dies:
                raise Killed
            return done

        return call


@functools.cache
def expected():
    """The tree of a whole run."""
    with tempfile.TemporaryDirectory(prefix="jaxlens-machine-") as folder:
        example.write_run(folder, SHARDS, ROWS)
        found = tree(folder)
    assert set(found) == set(NAMES)
    return found


def tree(out):
    found = example.tree(out)
    return {n: raw for n, raw in found.items() if not temporary.is_temporary(os.path.basename(n))}


class Store(RuleBasedStateMachine):
    """The model: shards known to be committed, and the one tree that a whole run is."""

    @initialize(whole=st.sampled_from([True, True, False]))
    def begin(self, whole):
        self.folder = Path(tempfile.mkdtemp(prefix="jaxlens-machine-"))
        self.out = self.folder / "run"
        self.expected = expected()
        self.sound = set()
        if whole:
            for name, raw in self.expected.items():
                (self.out / name).parent.mkdir(parents=True, exist_ok=True)
                (self.out / name).write_bytes(raw)
            self.sound = set(range(SHARDS))

    def teardown(self):
        if hasattr(self, "folder"):
            self.resume()
            shutil.rmtree(self.folder)

    def holds(self, name):
        path = self.out / name
        return path.is_file() and path.read_bytes() == self.expected[name]

    def work(self, disk):
        try:
            example.write_run(self.out, SHARDS, ROWS, disk=disk)
        except (errors.JaxlensError, Killed) as error:
            return error
        return None

    @rule(workers=st.integers(1, 4))
    def run(self, workers):
        refusable = (self.out / "RUN.json").exists() and not self.holds("RUN.json")
        refusable |= not (self.out / "RUN.json").exists() and self.out.exists()
        with ThreadPoolExecutor(workers) as pool:
            told = list(pool.map(self.work, [example.FAST] * workers))
        if any(told):
            assert refusable, told
            assert all(isinstance(e, (errors.DataError, errors.ConfigError)) for e in told), told
        else:
            assert tree(self.out) == self.expected
            self.sound = set(range(SHARDS))

    @rule(workers=st.integers(0, 2), at=st.integers(1, 90), after=st.booleans())
    def kill(self, workers, at, after):
        disks = [Dying(at, after), *[example.FAST] * workers]
        with ThreadPoolExecutor(len(disks)) as pool:
            told = list(pool.map(self.work, disks))
        if not any(told[1:]) and workers:
            assert tree(self.out) == self.expected

    @rule()
    def resume(self):
        """What a user does about a run that is refused: puts the spec back."""
        if self.out.exists() and not self.holds("RUN.json"):
            (self.out / "RUN.json").write_bytes(self.expected["RUN.json"])
        self.run(1)

    @rule(name=NAME, at=PLACE)
    def corrupt(self, name, at):
        self.harm([(corrupt, name, name, at)])

    @rule(name=NAME, at=PLACE)
    def truncate(self, name, at):
        self.harm([(truncate, name, name, at)])

    @rule(name=NAME)
    def delete(self, name):
        self.harm([(delete, name, name, 0)])

    @rule(one=NAME, other=NAME)
    def swap(self, one, other):
        self.harm([(swap, one, other, 0)])

    @rule(
        harms=st.lists(st.tuples(st.sampled_from(WAYS), NAME, NAME, PLACE), min_size=2, max_size=4)
    )
    def harm(self, harms):
        for way, name, other, at in harms:
            files = [self.out / name, self.out / other]
            if all(path.is_file() and path.stat().st_size for path in files):
                way(*files, at)
        self.sound = {shard for shard in self.sound if all(map(self.holds, of_shard(shard)))}
        self.verify()

    @rule()
    def finalize(self):
        whole = all(map(self.holds, ["RUN.json", *NAMES_OF_SHARDS]))
        try:
            derive.finalize(self.out, example.FAST)
        except errors.JaxlensError:
            assert not whole
        else:
            assert whole
            assert all(map(self.holds, ("MANIFEST", "summary.h5", "index.h5")))

    @rule()
    def verify(self):
        whole = self.out.is_dir() and tree(self.out) == self.expected
        try:
            report, quick = verify.verify(self.out), verify.verify(self.out, "fast")
        except errors.MissingError:
            assert not (self.out / "RUN.json").exists()
        else:
            assert report.ok == whole, report
            assert quick.ok or not whole, quick

    @invariant()
    def committed_shards_stay(self):
        for shard in getattr(self, "sound", ()):
            assert all(map(self.holds, of_shard(shard)))

    @invariant()
    def rows_are_right_or_refused(self):
        if not hasattr(self, "out"):
            return
        needed = ["RUN.json", *NAMES_OF_SHARDS]
        needed += [name for name in ("MANIFEST", "summary.h5") if (self.out / name).exists()]
        whole = all(map(self.holds, needed))
        parts = [example.compute_rows(shard, ROWS) for shard in range(SHARDS)]
        totals = [example.compute_tallies(shard) for shard in range(SHARDS)]
        try:
            with reader.open_run(self.out) as run:
                assert run.names == schema.CORE
                for name in ("kl_final", "top_id"):
                    wanted = np.concatenate([part[name] for part in parts])
                    if name == "top_id":
                        wanted = np.where(wanted == 2**16 - 1, -1, wanted.astype(np.int32))
                    np.testing.assert_array_equal(run[name][:], wanted)
                for name, found in run.tally.items():
                    np.testing.assert_array_equal(found, sum(part[name] for part in totals))
        except errors.JaxlensError:
            assert not whole


class TestStories(Store.TestCase):
    settings = settings(max_examples=8, stateful_step_count=6)


@pytest.mark.long
class TestMoreStories(Store.TestCase):
    settings = settings(max_examples=50, stateful_step_count=6)
