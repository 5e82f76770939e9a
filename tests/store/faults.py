"""A history that meets everything the store does, and a disk that fails at any of its calls."""

import errno
import os

from store import example

from jaxlens import config, errors
from jaxlens.files import system, temporary
from jaxlens.store import commit, finalize, layout, run_directory, shards

OPERATIONS = (
    *("open_exclusive", "write", "fsync", "close", "rename", "link", "unlink"),
    *("make_directory", "fsync_directory", "free_bytes"),
)
TAKE_SPACE = ("open_exclusive", "write", "fsync", "rename", "link", "make_directory")
OF_FOLDERS = ("make_directory", "fsync_directory", "free_bytes")
SHARDS, ROWS = 2, 8
SPEC = example.spec(SHARDS, ROWS)
HASH = config.spec_hash(SPEC)


class Killed(BaseException):
    """Stands for a process that is gone."""


class Faulty(system.Disk):
    """Fails from the ``at``-th call on, in one of several ways; notes all calls.

    Attributes:
        log: Name of each call, its file or folder, and whether it failed.
        arrival: A file's name and what a rival does just before that file is begun.
    """

    def __init__(self, at=None, way="", under=example.FAST):
        self.at, self.way, self.under = at, way, under
        self.log, self.arrival, self._paths = [], ("", lambda: None), {}

    def call(self, name, *arguments):
        number = len(self.log)
        file = self._paths.get(arguments[0], arguments[0])
        self.log.append((name, file, False))
        if name == "open_exclusive" and self.arrival[0] and self.arrival[0] in file:
            (_, rival), self.arrival = self.arrival, ("", lambda: None)
            rival()
        try:
            if self.at is not None and number >= self.at:
                self.fail(name, number, arguments)
            result = getattr(self.under, name)(*arguments)
        except BaseException:
            self.log[number] = (name, file, True)
            raise
        if name == "open_exclusive":
            self._paths[result] = file
        elif name == "close":
            self._paths.pop(arguments[0], None)
        return result

    def fail(self, name, number, arguments):
        if self.way == "killed":
            if number == self.at and name == "write":  # torn: half of it arrived
                self.under.write(arguments[0], arguments[1][: arguments[1].nbytes // 2])
            raise Killed
        if self.way == "full" and name in TAKE_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.way == "broken" or (self.way == "once" and number == self.at):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


for _name in OPERATIONS:
    setattr(Faulty, _name, lambda self, *a, _name=_name: self.call(_name, *a))


def target(file):
    """The file that a temporary one is to become, without the dot before its name."""
    folder, name = os.path.split(file)
    name = name.split(".tmp")[0].rpartition(".")[0][1:] if name.endswith(".tmp") else name
    return os.path.join(folder, name)


def write(out, disk=example.FAST):
    """Begins or resumes the run."""
    return example.write_run(out, SHARDS, ROWS, disk=disk)


def missing(out, level="full"):
    """Shards that must be computed, looked for without threads, which take most of the time."""
    found = []
    for shard in range(SHARDS):
        try:
            shards.check(out, shard, HASH, level)
        except (errors.MissingError, errors.DataError):
            found.append(shard)
    return found


def resume(out, level="full"):
    """As `write`, without threads."""
    run_directory.create_run(out, SPEC, example.FAST)
    example.publish_tokens(out, SHARDS, ROWS, example.FAST)
    for shard in missing(out, level):
        commit_shard(out, shard)
    finalize.finalize(out, example.FAST)


def commit_shard(out, shard, disk=example.FAST):
    """Commits one shard of the run."""
    data = memoryview(example.shard_image(SPEC, shard, SHARDS, ROWS))
    return commit.publish_shard(out, example.place(SPEC, shard, SHARDS, ROWS), data, ROWS, disk)


def live(out, disk):
    """A run from its beginning to its end, and once more after it was damaged.

    The second time one shard is damaged, and a rival commits the other, which is missing, between
    this writer's look at it and its own attempt.
    """
    write(out, disk)
    example.damage(out, 0)
    layout.shard_path(out, 1).unlink()
    disk.arrival = (layout.shard_name(1), lambda: commit_shard(out, 1))
    write(out, disk)


def in_sight(out, expected):
    """Files under final names whose bytes are wrong, and not because `live` damaged them."""
    found = []
    for name, raw in example.tree(out).items():
        was_damaged = name == "shards/part-00000.h5" and raw == flipped(expected[name])
        if not temporary.is_temporary(os.path.basename(name)) and raw != expected[name]:
            found += [name] * (not was_damaged)
    return found


def flipped(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])
