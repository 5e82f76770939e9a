"""Every legal state of the disk after a power loss, enumerated from the recorded system calls.

What was synced is kept. Of everything else any part may be there: each change of a directory since
its last sync, and of a file's unsynced bytes nothing, a torn part, zeros, or all.
"""

import os
import random
from pathlib import Path

import pytest
from store import example

from jaxlens import config, errors
from jaxlens.store import commit, derive, layout, shards

SHARDS, ROWS = 2, 8
SPEC = example.spec(SHARDS, ROWS)


class Recorder(example.FastDisk):
    """Notes what would have reached the disk, in order."""

    def __init__(self, root):
        self.root, self.ops, self.paths = root, [], {}

    def note(self, kind, path, *more):
        self.ops.append((kind, os.path.relpath(path, self.root), *more))

    def open_exclusive(self, path):
        descriptor = super().open_exclusive(path)
        self.paths[descriptor] = path
        self.note("create", path)
        return descriptor

    def write(self, descriptor, data):
        # In pieces, so that a loss of power also comes between them.
        written = super().write(descriptor, data[: max(64, data.nbytes // 3)])
        self.note("write", self.paths[descriptor], bytes(data[:written]))
        return written

    def fsync(self, descriptor):
        self.note("fsync", self.paths[descriptor])

    def rename(self, source, target):
        super().rename(source, target)
        self.note("rename", source, os.path.relpath(target, self.root))

    def link(self, source, target):
        super().link(source, target)
        self.note("link", source, os.path.relpath(target, self.root))

    def unlink(self, path):
        super().unlink(path)
        self.note("unlink", path)

    def fsync_directory(self, path):
        self.note("dsync", path)


class Inode:
    def __init__(self):
        self.content, self.durable = b"", b""

    def sample(self, chance):
        fresh = self.content[len(self.durable) :]
        cut = chance.choice([0, len(fresh), chance.randint(0, len(fresh))])
        zeros = bytes(len(fresh) - cut) if chance.random() < 0.3 else b""
        return self.durable + fresh[:cut] + zeros


class Model:
    """Names and contents, and which of them a power loss cannot take."""

    def __init__(self):
        self.names, self.durable, self.pending = {}, {}, []

    def change(self, name, inode):
        self.pending.append((name, inode))
        if inode is None:
            self.names.pop(name)
        else:
            self.names[name] = inode

    def apply(self, kind, name, *more):
        if kind == "create":
            self.change(name, Inode())
        elif kind == "write":
            self.names[name].content += more[0]
        elif kind == "fsync":
            self.names[name].durable = self.names[name].content
        elif kind == "rename":
            inode = self.names[name]
            self.change(name, None)
            self.change(more[0], inode)
        elif kind == "link":
            self.change(more[0], self.names[name])
        elif kind == "unlink":
            self.change(name, None)
        elif kind == "dsync":
            inside = [(n, i) for n, i in self.pending if (os.path.dirname(n) or ".") == name]
            self.pending = [change for change in self.pending if change not in inside]
            self.settle(self.durable, inside)

    def settle(self, names, changes):
        for name, inode in changes:
            if inode is None:
                names.pop(name, None)
            else:
                names[name] = inode

    def sample(self, chance):
        names = dict(self.durable)
        self.settle(names, [c for c in self.pending if chance.random() < 0.5])
        return {name: inode.sample(chance) for name, inode in sorted(names.items())}


def record(root):
    """The system calls of a run, with a mark where a shard was acknowledged."""
    disk = Recorder(root)
    run = layout.create_run(root, SPEC, disk)
    example.publish_tokens(root, SHARDS, ROWS, disk)
    for shard in shards.missing_shards(root, SHARDS, run.hash):
        data = memoryview(example.shard_image(SPEC, shard, SHARDS, ROWS))
        commit.publish_shard(root, example.place(SPEC, shard, SHARDS, ROWS), data, ROWS, disk)
        disk.ops.append(("ack", shard))
    derive.finalize(root, disk)
    return disk.ops


def states(ops, each, seed):
    """Distinct states after every prefix of the calls, with the shards acknowledged by then."""
    chance, model, acknowledged = random.Random(seed), Model(), set()
    for number, op in enumerate(ops):
        if op[0] == "ack":
            acknowledged.add(op[1])
        else:
            model.apply(*op)
        found = {tuple(model.sample(chance).items()) for _ in range(each)}
        yield from ((number, dict(state), set(acknowledged)) for state in sorted(found))


def lay_out(root, state):
    root.mkdir(parents=True)
    for name, raw in state.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)


def loss(root, state, acknowledged, expected, recover):
    """What is wrong after a power loss; empty if nothing is."""
    lay_out(root, state)
    missing = shards.missing_shards(root, SHARDS, config.spec_hash(SPEC))
    if acknowledged & set(missing):
        return "an acknowledged shard is lost"
    for shard in set(range(SHARDS)) - set(missing):
        name = str(layout.shard_path(root, shard).relative_to(root.resolve()))
        if state[name] != expected[name]:
            return "a damaged shard is believed"
    if recover:
        try:
            example.write_run(root, SHARDS, ROWS)
        except errors.JaxlensError as error:
            return f"recovery fails: {error}"
        left = {n: r for n, r in example.tree(root).items() if not Path(n).name.startswith(".")}
        return "" if left == expected else "recovery gives another run"
    return ""


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recorded") / "run")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    example.write_run(out, SHARDS, ROWS)
    return example.tree(out)


def examine(ops, tmp_path, expected, each, every=1):
    found = []
    for number, (_, state, acknowledged) in enumerate(states(ops, each, 3)):
        root = tmp_path / str(number)
        found.append(loss(root, state, acknowledged, expected, number % every == 0))
    return found


def test_no_power_loss_takes_a_committed_shard_or_lets_damage_pass(tmp_path, ops, expected):
    found = examine(ops, tmp_path, expected, each=4, every=16)
    assert len(found) > 200 and set(found) == {""}


@pytest.mark.long
def test_no_power_loss_in_thousands_does_harm(tmp_path, ops, expected):
    found = examine(ops, tmp_path, expected, each=300, every=10)
    assert len(found) >= 5000 and set(found) == {""}


@pytest.mark.parametrize("kind", ["fsync", "dsync"])
def test_without_syncing_the_same_search_finds_losses(tmp_path, ops, expected, kind):
    found = examine([op for op in ops if op[0] != kind], tmp_path, expected, each=3, every=10**9)
    assert "an acknowledged shard is lost" in found
