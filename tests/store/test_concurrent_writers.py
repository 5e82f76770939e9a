"""Several writers on one run: no shard is lost or doubled, and none is of two minds."""

import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store import example, faults, remember, schedule

from jaxlens import errors
from jaxlens.files import publish
from jaxlens.store import commit, finalize, layout, records, run_directory, shards, verify

RIVALS = 3

BITS = schedule.BITS


def short_or_long(names, short, *long):
    """A test that `make test` runs with few cases, and `make test-long` with many."""
    return pytest.mark.parametrize(names, [short, pytest.param(*long, marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    faults.write(out)
    return example.tree(out)


def race(folder, races, rivals, salted):
    """Lets processes write each of several runs at the same time."""
    script = Path(__file__).with_name("race.py")
    command = [sys.executable, script, folder, *map(str, (races, rivals, salted))]
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.check_output(command, env=environment, text=True) == "0\n"
    return [folder / str(number) for number in range(races)]


@short_or_long("races", 10, 50)
@pytest.mark.parametrize("rivals", [pytest.param(2, marks=pytest.mark.long), 3])
def test_races_of_processes_lose_and_double_nothing(tmp_path, monkeypatch, expected, rivals, races):
    remember.patch(monkeypatch)
    for out in race(tmp_path, races, rivals, 0):
        assert example.tree(out) == expected
        assert verify.verify(out).ok


@short_or_long("races", 10, 50)
def test_rival_processes_with_other_bits_leave_each_shard_wholly_one_of_theirs(
    tmp_path, monkeypatch, races
):
    made = [
        [example.shard_image(faults.SPEC, n, faults.SHARDS, faults.ROWS, salt=s) for s in range(3)]
        for n in range(faults.SHARDS)
    ]
    remember.patch(monkeypatch)
    winners = set()
    for out in race(tmp_path, races, RIVALS, 1):
        found = [layout.shard_path(out, n).read_bytes() for n in range(faults.SHARDS)]
        assert all(raw in known for raw, known in zip(found, made, strict=True))
        assert faults.write(out) == []  # no shard is missing or damaged
        assert verify.verify(out).ok
        winners |= {known.index(raw) for raw, known in zip(found, made, strict=True)}
    assert len(winners) > 1  # it was not always the same


@short_or_long("races", 4, 12)
def test_rival_threads_that_write_one_run_agree(tmp_path, expected, races):
    for number in range(races):
        out, caught = tmp_path / str(number), []
        start = threading.Barrier(RIVALS)

        def work(out=out, caught=caught, start=start):
            start.wait()
            try:
                faults.write(out)
            except BaseException as error:
                caught.append(error)

        rivals = [threading.Thread(target=work) for _ in range(RIVALS)]
        for rival in rivals:
            rival.start()
        for rival in rivals:
            rival.join()
        assert not caught, caught
        assert example.tree(out) == expected
        assert verify.verify(out).ok


@pytest.fixture
def opaque(monkeypatch):
    schedule.opaque(monkeypatch)
    with schedule.pausing_reads():
        yield


def standing(out):
    """Bits of the shard, which must be sound."""
    shards.check(out, 0, schedule.HASH)
    raw = layout.shard_path(out, 0).read_bytes()
    assert raw in BITS
    return raw


@pytest.mark.usefixtures("opaque")
@short_or_long("depth", 7, 9)
@pytest.mark.parametrize(
    "before",
    ["nothing", *(pytest.param(b, marks=pytest.mark.long) for b in ("record", "shard")), "damaged"],
)
def test_two_writers_with_other_bits_leave_a_sound_shard_in_every_order(scratch, before, depth):
    """Of the first choices of the order, which are taken both ways."""
    out, ends = scratch / "run", set()
    for number, choose in enumerate(schedule.orders(depth)):
        schedule.prepare(out, before)
        told = schedule.play([schedule.writer(out, bits) for bits in BITS[:2]], choose)
        assert all(t is None or isinstance(t, records.Record) for t in told), number
        won = standing(out)
        ends.add((won, *(t is None for t in told)))
        assert [t.sha256 for t in told if t] in (
            [],
            [records.record(schedule.PLACE, 8, won).sha256],
        )
        assert told[BITS.index(won)] is None
    assert number > 100 and {won for won, *_ in ends} == set(BITS[:2])
    assert (BITS[0], True, False) in ends  # a rival is told that the other's stands


@pytest.mark.long
@pytest.mark.usefixtures("opaque")
@short_or_long(("orders", "seed", "least"), (120, 5, 2), 600, 4, 4)
def test_three_writers_of_whom_one_may_die_leave_a_sound_shard_or_one_that_is_recomputed(
    scratch, orders, seed, least
):
    chance, out, harmed = random.Random(seed), scratch / "run", 0
    for number in range(orders):
        schedule.prepare(out, chance.choice(["nothing", "record", "shard", "damaged"]))
        jobs = [schedule.writer(out, bits) for bits in BITS]
        dies = (chance.randrange(3), chance.randrange(8)) if number % 2 else None
        told = schedule.play(jobs, chance.choice, kill=dies)
        died = [isinstance(outcome, schedule.Killed) for outcome in told]
        assert all(
            t is None or isinstance(t, records.Record) or d for t, d in zip(told, died, strict=True)
        )
        if shards.missing_shards(out, 1, schedule.HASH):
            harmed += 1
            assert any(died)
            assert schedule.writer(out, BITS[0])(example.FAST) is None
        standing(out)
    assert harmed >= least  # deaths between a sidecar and its shard do occur here


@pytest.mark.usefixtures("opaque")
def test_disk_that_keeps_other_bytes_than_were_written_is_given_up(tmp_path):
    class Lying(example.FastDisk):
        def fsync_directory(self, path):
            for sidecar in Path(path).glob("part-*.json"):
                sidecar.write_bytes(b"{}")

    schedule.prepare(tmp_path, "nothing")
    with pytest.raises(errors.StorageError, match="does not stay as it was written") as caught:
        schedule.writer(tmp_path, BITS[0])(Lying())
    assert caught.value.exit_code == 74


def test_rival_that_removes_a_temporary_file_is_survived(tmp_path):
    class Rival(example.FastDisk):
        removed = 0

        def rename(self, source, target):
            if not self.removed:
                self.removed += 1
                os.unlink(source)
            super().rename(source, target)

    publish.publish(tmp_path / "a", b"data", Rival())
    assert (tmp_path / "a").read_bytes() == b"data"


def finalizing(out, spec_bytes, salt):
    """A job that writes all shards of a run and finalizes it."""

    def job(disk):
        for shard in range(2):
            made = memoryview(example.shard_image(spec_bytes, shard, 2, 8, salt=salt))
            commit.publish_shard(out, example.place(spec_bytes, shard, 2, 8), made, 8, disk)
        finalize.finalize(out, disk)

    return job


def overtaken(head_start, steps):
    """The second writer looks first, the first overtakes it, and then waits to the end."""
    plan = [1] * head_start + [0] * steps

    def choose(alive):
        wanted = plan.pop(0) if plan else 1
        return wanted if wanted in alive else alive[0]

    return choose


@short_or_long("every", 6, 2)
def test_stale_derived_files_of_a_writer_that_was_overtaken_are_built_again(scratch, every):
    out, spec_bytes = scratch / "run", example.spec(2, 8)
    both, refused = 0, 0
    for steps in range(2, 60, every):
        shutil.rmtree(out, ignore_errors=True)
        run = run_directory.create_run(out, spec_bytes, example.FAST)
        example.publish_tokens(out, 2, 8, example.FAST)
        jobs = [finalizing(out, spec_bytes, salt) for salt in (0, 1)]
        with schedule.pausing_reads():
            told = schedule.play(jobs, overtaken(2, steps))
        # Who looks while a rival replaces what he looks at may say so; the run is sound still.
        assert all(t is None or isinstance(t, errors.DataError) for t in told), told
        assert not shards.missing_shards(out, 2, run.hash)
        if told == [None, None]:
            both += 1
            assert verify.verify(out).ok, steps
        refused += told != [None, None]
    assert both > 40 // every and refused < 10 // every
