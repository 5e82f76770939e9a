"""Each precaution of the store removed in turn: the search that guards it must then find harm.

Every test prints how much of what it searched was harmed; ``pytest -s`` shows it. The long form of
a search, which the documentation quotes, takes every state, kill or order, the short one a part.
"""

import collections
import contextlib
import itertools
import os
import random
import shutil

import pytest
from store import example, faults, power, remember, schedule

from jaxlens import errors
from jaxlens.files import publish, system
from jaxlens.store import commit, layout, records, shards

BITS = schedule.BITS
DEPTH = 8
LONG = pytest.param(1, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    faults.write(out)
    return example.tree(out)


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    return power.record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def quick(monkeypatch):
    remember.patch(monkeypatch)


def told(what, found):
    print(f"{what}: {found.total() - found['']} of {found.total()} harmed, {dict(found)}")
    return found


def lose_power(what, scratch, ops, expected, level="full", step=1):
    """What power losses do, and how often."""
    found = collections.Counter()
    for state, promised in itertools.islice(power.states(ops), None, None, step):
        found[power.harm(scratch / "lost", state, promised, expected, level)] += 1
        shutil.rmtree(scratch / "lost")
    return told(what, found)


def kill(what, scratch, expected, under=example.FAST, step=1):
    """What kills at every call do, or at every so many-th, and how often."""
    found, at, killed = collections.Counter(), 0, True
    while killed:
        out, killed = scratch / "run", False
        try:
            faults.live(out, faults.Faulty(at, "killed", under))
        except faults.Killed:
            killed = True
        found[harm(out, expected)] += killed
        shutil.rmtree(out, ignore_errors=True)
        at += step
    return told(what, found)


def harm(out, expected):
    torn = faults.in_sight(out, expected)
    try:
        faults.resume(out)
    except errors.JaxlensError as error:
        return f"no recovery: {type(error).__name__}"
    if example.tree(out) != expected:
        return "recovery gives another run"
    return "a torn file in sight" if torn else ""


def without(ops, *kinds):
    return [op for op in ops if op[0] not in kinds]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [6, LONG])
def test_without_syncing_files_power_losses_take_promised_shards(scratch, ops, expected, step):
    found = lose_power("no fsync of files", scratch, without(ops, "fsync"), expected, step=step)
    assert found["a promised shard is lost"] > 100
    assert found["no recovery: DataError"] > 0  # of RUN.json nobody can make a second one
    assert found["a damaged shard is believed"] == 0  # the hash still tells


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [25, LONG])
def test_without_syncing_directories_power_losses_take_promised_shards(
    scratch, ops, expected, step
):
    without_syncing = without(ops, "dsync")
    found = lose_power("no fsync of directories", scratch, without_syncing, expected, step=step)
    assert found["a promised shard is lost"] > found.total() / 4
    # How many states a search has varies by a few: the writer's thread and the main one alternate.
    assert found.total() > 150


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [10, LONG])
def test_without_hashes_damage_by_a_disk_that_lies_about_syncing_is_believed(
    scratch, ops, expected, step
):
    without_syncing = without(ops, "fsync")
    found = lose_power("no fsync, sizes only", scratch, without_syncing, expected, "fast", step)
    assert found["a damaged shard is believed"] > 0


def test_without_hashes_every_flipped_bit_is_believed_and_with_them_none(scratch):
    faults.resume(scratch)
    size = layout.shard_path(scratch, 0).stat().st_size
    believed = collections.Counter()
    for at in range(0, size, size // 60):
        example.damage(scratch, 0, at)
        for level in ("fast", "full"):
            believed[level] += 0 not in faults.missing(scratch, level)
        example.damage(scratch, 0, at)
    print(f"flipped bits believed: {dict(believed)}")
    assert believed["fast"] >= 60 and believed["full"] == 0


def test_without_hashes_a_record_and_a_shard_of_two_rivals_are_believed(scratch, monkeypatch):
    schedule.opaque(monkeypatch)
    schedule.prepare(scratch / "run", "nothing")
    schedule.writer(scratch / "run", BITS[0])(example.FAST)
    layout.shard_path(scratch / "run", 0).write_bytes(BITS[1])
    arguments = (scratch / "run", 1, schedule.HASH)
    assert shards.missing_shards(*arguments, "fast") == []
    assert shards.missing_shards(*arguments, "full") == [0]


class InPlace(example.FastDisk):
    """Writes under the final name at once; there is nothing to rename."""

    def open_exclusive(self, path):
        return os.open(faults.target(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def rename(self, source, target):
        pass

    def link(self, source, target):
        pass

    def unlink(self, path):
        with contextlib.suppress(FileNotFoundError):
            super().unlink(path)


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_without_renaming_kills_leave_runs_that_cannot_be_resumed(scratch, expected):
    # At every call, this finds nothing either: `test_faults` has them all.
    assert set(kill("kills", scratch / "as it is", expected, step=10)) == {""}
    found = kill("kills, written in place", scratch / "in place", expected, InPlace())
    assert found["no recovery: DataError"] > 0 and found["a torn file in sight"] > 10


class SharedName(example.FastDisk):
    """Gives all writers of a file one temporary name, and does not insist on a new file."""

    def open_exclusive(self, path):
        return os.open(shared(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def rename(self, source, target):
        super().rename(shared(source), target)

    def link(self, source, target):
        super().link(shared(source), target)

    def unlink(self, path):
        super().unlink(shared(path))


def shared(temporary):
    return faults.target(temporary) + ".tmp"


# Of 500 orders few fail, and the 403rd always does.
SEEDS = [range(395, 405), pytest.param(range(500), marks=pytest.mark.long)]


def play_all(what, scratch, monkeypatch, job, orders, **more):
    """How the shard of two rivals ends, in several orders of their steps, and how often."""
    schedule.opaque(monkeypatch)
    found, out = collections.Counter(), scratch / "run"
    with schedule.pausing_reads():
        for choose in orders:
            schedule.prepare(out, "nothing")
            outcomes = schedule.play([job(out, bits) for bits in BITS[:2]], choose, **more)
            failed = [type(o).__name__ for o in outcomes if isinstance(o, BaseException)]
            damaged = ["damaged shard"] * bool(shards.missing_shards(out, 1, schedule.HASH))
            found[", ".join(damaged + failed)] += 1
    return told(what, found)


@pytest.mark.parametrize("seeds", SEEDS)
def test_rivals_that_share_a_temporary_name_damage_a_shard_or_fail(scratch, monkeypatch, seeds):
    steps = (*schedule.SEEN, "open_exclusive", "write", "unlink")
    more = {"steps": steps, "under": SharedName()}
    orders = [random.Random(seed).choice for seed in seeds]
    found = play_all("shared name", scratch, monkeypatch, schedule.writer, orders, **more)
    assert found.total() > found[""]


def hasty(out, bits):
    """A writer that leaves after its last step without looking whether record and shard fit."""
    entry, path = records.record(schedule.PLACE, 8, bits), layout.shard_path(out, 0)

    def job(disk):
        publish.publish(layout.sidecar_path(out, 0), records.encode(entry), disk)
        if not publish.publish(path, bits, disk, replace=False):
            publish.publish(path, bits, disk)

    return job


def test_rivals_that_leave_without_a_last_look_leave_a_record_beside_the_others_shard(
    scratch, monkeypatch
):
    found = play_all("no last look", scratch, monkeypatch, hasty, schedule.orders(DEPTH))
    assert found["damaged shard"] > 3


def reversed_commit(run_dir, place, image, rows, disk=system.DISK):
    """Commits a shard before its record."""
    entry = records.record(place, rows, image)
    publish.publish(layout.shard_path(run_dir, place.shard), image, disk)
    publish.publish(layout.sidecar_path(run_dir, place.shard), records.encode(entry), disk)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", [4, LONG])
def test_order_of_record_and_shard_does_no_harm_since_only_both_together_count(
    tmp_path, scratch, monkeypatch, expected, step
):
    # No control: the promise is made when both are durable, and either alone counts as missing.
    monkeypatch.setattr(commit, "publish_shard", reversed_commit)
    assert set(kill("kills, record last", scratch / "kills", expected, step=step)) == {""}
    ops = power.record(tmp_path)
    assert set(lose_power("power, record last", scratch, ops, expected, step=step)) == {""}
