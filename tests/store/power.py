"""What a power loss may leave of a run: recorded system calls, and the states that are legal.

What was synced is kept. Of everything else any part may be there: each change of a directory since
its last sync, and of a file's unsynced bytes nothing, a torn part, zeros, some sectors, or all.
"""

import itertools
import os
import random

from store import example, faults

from jaxlens import errors
from jaxlens.store import finalize, layout, run_directory

BASE = "run"
"""Name of the run directory, whose own entry can be lost as well."""

MAX_SUBSETS = 32
"""Subsets of the unsynced changes that are taken one by one; of more, as many are drawn."""

SECTOR = 512
FATES = ("lost", "torn", "zeros", "patchy", "kept")


class Recorder(example.FastDisk):
    """Notes what would have reached the disk, in order."""

    def __init__(self, base):
        self.base, self.ops, self.paths = base, [], {}

    def note(self, kind, path, *more):
        self.ops.append((kind, os.path.relpath(path, self.base), *more))

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
        self.note("rename", source, os.path.relpath(target, self.base))

    def link(self, source, target):
        super().link(source, target)
        self.note("link", source, os.path.relpath(target, self.base))

    def unlink(self, path):
        super().unlink(path)
        self.note("unlink", path)

    def make_directory(self, path):
        super().make_directory(path)
        self.note("mkdir", path)

    def fsync_directory(self, path):
        self.note("dsync", path)


def record(base):
    """The calls of a run that is written, damaged and mended, with a mark for each promise."""
    disk = Recorder(base)
    out = base / BASE
    run_directory.create_run(out, faults.SPEC, disk)
    example.publish_tokens(out, faults.SHARDS, faults.ROWS, disk)
    for shard in range(faults.SHARDS):
        faults.commit_shard(out, shard, disk)
        disk.ops.append(("promise", shard))
    finalize.finalize(out, disk)
    example.damage(out, 0)
    raw = layout.shard_path(out, 0).read_bytes()
    disk.ops.append(("release", 0))
    disk.note("damage", layout.shard_path(out, 0), raw)
    faults.commit_shard(out, 0, disk)
    disk.ops.append(("promise", 0))
    finalize.finalize(out, disk)
    return disk.ops


class Inode:
    """A file's bytes, and how many of them a power loss cannot take; or a directory."""

    def __init__(self, directory=False):
        self.content, self.durable, self.directory = b"", 0, directory

    def after(self, fate, chance):
        if self.durable == len(self.content):
            return self.content
        synced, fresh = self.content[: self.durable], self.content[self.durable :]
        if fate == "torn":
            fresh = fresh[: chance.randint(0, len(fresh))]
        elif fate == "zeros":
            fresh = bytes(len(fresh))
        elif fate == "patchy":  # the drive writes sectors in any order
            sectors = (fresh[at : at + SECTOR] for at in range(0, len(fresh), SECTOR))
            fresh = b"".join(s if chance.random() < 0.5 else bytes(len(s)) for s in sectors)
        return synced + (b"" if fate == "lost" else fresh)


class Model:
    """Names and contents, and the changes of names that a power loss can take."""

    def __init__(self):
        self.names, self.durable, self.pending = {}, {}, []

    def change(self, name, inode):
        self.pending.append((name, inode))
        if inode is None:
            self.names.pop(name)
        else:
            self.names[name] = inode

    def apply(self, kind, name, *more):
        inode = self.names.get(name)
        if kind in ("create", "mkdir"):
            self.change(name, Inode(kind == "mkdir"))
        elif kind == "write":
            inode.content += more[0]
        elif kind == "damage":
            inode.content = more[0]
        elif kind == "fsync":
            inode.durable = len(inode.content)
        elif kind == "rename":
            self.change(name, None)
            self.change(more[0], inode)
        elif kind == "link":
            self.change(more[0], inode)
        elif kind == "unlink":
            self.change(name, None)
        elif kind == "dsync":
            settle(self.durable, [c for c in self.pending if folder(c[0]) == name])
            self.pending = [c for c in self.pending if folder(c[0]) != name]

    def subsets(self, chance):
        """Which of the unsynced changes a power loss leaves."""
        count = len(self.pending)
        if 2**count <= MAX_SUBSETS:
            picks = itertools.product((False, True), repeat=count)
        else:
            picks = ([chance.random() < 0.5 for _ in self.pending] for _ in range(MAX_SUBSETS))
        return [[c for c, kept in zip(self.pending, pick, strict=True) if kept] for pick in picks]

    def after(self, changes, fates, chance):
        """Bytes by name; None for a directory."""
        names = dict(self.durable)
        settle(names, changes)
        there = {n: i for n, i in names.items() if reachable(n, names)}
        state = {}
        for name, inode in sorted(there.items()):
            state[name] = None if inode.directory else inode.after(chance.choice(fates), chance)
        return state


def settle(names, changes):
    for name, inode in changes:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def folder(name):
    return os.path.dirname(name) or "."


def reachable(name, names):
    return folder(name) == "." or (folder(name) in names and reachable(folder(name), names))


def states(ops, draws=1, seed=3):
    """Distinct states after every prefix of the calls, with the shards promised by then.

    Every subset of the unsynced changes meets every fate of all unsynced bytes, those that are up
    to chance several times, and ``draws`` times fates drawn file by file.
    """
    chance, model, promised, seen = random.Random(seed), Model(), set(), set()
    for op in ops:
        if op[0] == "promise":
            promised.add(op[1])
        elif op[0] == "release":
            promised.discard(op[1])
        else:
            model.apply(*op)
        for changes in model.subsets(chance):
            for fates in [(fate,) for fate in FATES] + [FATES] * draws:
                state = model.after(changes, fates, chance)
                key = hash((*state.items(), *sorted(promised)))
                if key not in seen:
                    seen.add(key)
                    yield state, frozenset(promised)


def lay_out(base, state):
    base.mkdir()
    for name, raw in state.items():  # sorted, hence folders first
        if raw is None:
            (base / name).mkdir()
        else:
            (base / name).write_bytes(raw)


def harm(base, state, promised, expected, level="full"):
    """What is wrong after a power loss; empty if nothing is."""
    lay_out(base, state)
    out = base / BASE
    missing = faults.missing(out, level)
    if promised & set(missing):
        return "a promised shard is lost"
    for shard in set(range(faults.SHARDS)) - set(missing):
        name = layout.shard_file(shard)
        if state[f"{BASE}/{name}"] != expected[name]:
            return "a damaged shard is believed"
    try:
        faults.resume(out, level)
    except errors.JaxlensError as error:
        return f"no recovery: {type(error).__name__}"
    left = {n: raw for n, raw in example.tree(out).items() if os.path.basename(n)[0] != "."}
    return "" if left == expected else "recovery gives another run"
