import contextlib
import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import time

import pytest
from store import example

from jaxlens import errors
from jaxlens.files import publish, system, temporary

DATA = bytes(range(256)) * 40


class Failing(system.Disk):
    """Fails one operation, the first ``times`` it is called."""

    def __init__(self, operation, number=errno.EIO, times=1):
        self.calls = []
        self._left = times
        self._error = OSError(number, os.strerror(number))
        self._operation = operation

    def _call(self, name, *arguments):
        self.calls.append(name)
        if name == self._operation and self._left:
            self._left -= 1
            raise self._error
        return getattr(system.Disk, name)(self, *arguments)

    def open_exclusive(self, path):
        return self._call("open_exclusive", path)

    def write(self, descriptor, data):
        return self._call("write", descriptor, data)

    def fsync(self, descriptor):
        self._call("fsync", descriptor)

    def rename(self, source, target):
        self._call("rename", source, target)

    def fsync_directory(self, path):
        self._call("fsync_directory", path)

    def free_bytes(self, path):
        return self._call("free_bytes", path)


class Trickling(system.Disk):
    """Writes at most seven bytes at a time."""

    def write(self, descriptor, data):
        return super().write(descriptor, data[:7])


class Small(system.Disk):
    """Has little space."""

    def __init__(self, free):
        self.free = free

    def free_bytes(self, path):
        return self.free


def test_published_file_holds_the_bytes_and_no_temporary_stays(tmp_path):
    publish.publish(tmp_path / "a", DATA)
    publish.publish(tmp_path / "a", memoryview(DATA)[::-1].tobytes())
    assert (tmp_path / "a").read_bytes() == DATA[::-1]
    assert os.listdir(tmp_path) == ["a"]


def test_empty_file_can_be_published(tmp_path):
    publish.publish(tmp_path / "a", b"")
    assert (tmp_path / "a").read_bytes() == b""


def test_short_writes_are_continued(tmp_path):
    publish.publish(tmp_path / "a", DATA[:1000], Trickling())
    assert (tmp_path / "a").read_bytes() == DATA[:1000]


@pytest.mark.parametrize(
    "operation", ["open_exclusive", "write", "fsync", "rename", "fsync_directory"]
)
def test_failed_attempt_is_repeated_with_a_new_file(tmp_path, operation):
    (tmp_path / "a").write_bytes(b"old")
    disk = Failing(operation, times=2)
    publish.publish(tmp_path / "a", DATA, disk)
    assert (tmp_path / "a").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["a"]
    assert disk.calls.count("open_exclusive") == publish.TRIES


@pytest.mark.parametrize("operation", ["open_exclusive", "write", "fsync", "rename"])
def test_disk_that_keeps_failing_ends_in_a_storage_error_and_the_old_file(tmp_path, operation):
    (tmp_path / "a").write_bytes(b"old")
    disk = Failing(operation, times=99)
    with pytest.raises(errors.StorageError, match="Input/output error") as caught:
        publish.publish(tmp_path / "a", DATA, disk)
    assert caught.value.exit_code == 74 and caught.value.hint
    assert disk.calls.count("open_exclusive") == publish.TRIES
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_descriptor_whose_fsync_failed_is_never_synced_again(tmp_path):
    synced = []

    class Watching(system.Disk):
        def open_exclusive(self, path):
            synced.append(0)
            return super().open_exclusive(path)

        def fsync(self, descriptor):
            synced[-1] += 1
            raise OSError(errno.EIO, "lost")

    with pytest.raises(errors.StorageError):
        publish.publish(tmp_path / "a", DATA, Watching())
    assert synced == [1] * publish.TRIES


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_full_disk_is_not_tried_again(tmp_path, number):
    disk = Failing("write", number, times=99)
    with pytest.raises(errors.StorageError, match=os.strerror(number)) as caught:
        publish.publish(tmp_path / "a", DATA, disk)
    assert disk.calls.count("write") == 1
    assert ("space" in caught.value.hint) == (number != errno.EROFS)
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_refused_before_anything_is_written(tmp_path):
    needed = 2 * len(DATA)
    with pytest.raises(errors.StorageError, match=f"{needed} bytes must be free, {needed - 1}"):
        publish.publish(tmp_path / "a", DATA, Small(needed - 1))
    assert os.listdir(tmp_path) == []
    publish.publish(tmp_path / "a", DATA, Small(needed))
    publish.publish(tmp_path / "a", DATA, Small(None))


def test_file_that_must_not_be_replaced_stays_and_leaves_no_temporary(tmp_path):
    publish.publish(tmp_path / "a", b"first", replace=False)
    publish.publish(tmp_path / "a", b"second", replace=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_file_system_without_links_is_tolerated(tmp_path, monkeypatch, number):
    def refuse(*arguments, **more):
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", refuse)
    publish.publish(tmp_path / "a", DATA, replace=False)
    assert (tmp_path / "a").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["a"]


def test_missing_directory_is_a_storage_error(tmp_path):
    with pytest.raises(errors.StorageError, match="No such file"):
        publish.publish(tmp_path / "none" / "a", DATA)


def test_stream_publishes_what_was_written_with_size_and_hash(tmp_path):
    with publish.stream(tmp_path / "a") as stream:
        stream.write(DATA)
        assert os.listdir(tmp_path) != ["a"]
        stream.write(memoryview(DATA)[:5])
    assert (tmp_path / "a").read_bytes() == DATA + DATA[:5]
    assert stream.size == len(DATA) + 5
    assert stream.sha256 == hashlib.sha256(DATA + DATA[:5]).hexdigest()


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(errno.ENOENT, "of the source")])
def test_stream_leaves_nothing_when_its_block_fails(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)) as caught, publish.stream(tmp_path / "a") as stream:
        stream.write(DATA)
        raise error
    assert caught.value is error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("operation", ["open_exclusive", "write", "fsync", "rename"])
def test_stream_that_the_disk_fails_is_a_storage_error_without_a_file(tmp_path, operation):
    disk = Failing(operation)
    with (
        pytest.raises(errors.StorageError),
        publish.stream(tmp_path / "a", disk) as stream,
    ):
        stream.write(DATA)
    assert os.listdir(tmp_path) == []


def test_make_directory_makes_parents_and_refuses_a_file(tmp_path):
    publish.make_directory(tmp_path / "a" / "b")
    publish.make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(errors.StorageError, match="Not a directory"):
            publish.make_directory(path)


def test_make_directory_says_where_a_link_leads_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("link", "link/below", "loop"):
        with pytest.raises(errors.StorageError, match=r"its link to .* leads nowhere"):
            publish.make_directory(tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    publish.make_directory(tmp_path / "link" / "below")


def test_leftovers_of_dead_writers_go_and_those_of_live_writers_stay(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    machine = temporary._machine()
    alive = f".part.{machine}-{child.pid}-{'0' * 16}.tmp"
    foreign = f".part.{int(machine, 16) ^ 1:08x}-{child.pid}-{'0' * 16}.tmp"
    old = f".part.{int(machine, 16) ^ 1:08x}-{child.pid}-{'1' * 16}.tmp"
    mine = f".part.{machine}-{os.getpid()}-{'0' * 16}.tmp"
    for name in (alive, foreign, old, mine, "part-00000.h5", ".hidden.tmp"):
        (tmp_path / name).write_bytes(b"")
    past = time.time() - temporary.STALE_SECONDS - 60
    os.utime(tmp_path / old, (past, past))
    with publish.stream(tmp_path / "under way") as stream:
        stream.write(b"1")
        assert temporary.remove_leftovers(tmp_path) == 2
    kept = {alive, foreign, "part-00000.h5", ".hidden.tmp", "under way"}
    assert set(os.listdir(tmp_path)) == kept
    child.communicate(b"\n")
    assert temporary.remove_leftovers(tmp_path) == 1
    assert set(os.listdir(tmp_path)) == kept - {alive}
    assert temporary.remove_leftovers(tmp_path / "none") == 0


def test_file_system_that_cannot_sync_directories_is_tolerated(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    with contextlib.suppress(AttributeError):
        system.DISK.fsync_directory(str(tmp_path))


def test_disk_that_writes_nothing_ends_in_a_storage_error(tmp_path):
    class Stuck(example.FastDisk):
        def write(self, descriptor, data):
            return 0

    with pytest.raises(errors.StorageError, match="Input/output error"):
        publish.publish(tmp_path / "a", b"data", Stuck())
    assert os.listdir(tmp_path) == []


def test_bytes_are_safe_and_nameless_when_what_comes_before_the_name_is_done(tmp_path):
    seen = []

    def look():
        (name,) = os.listdir(tmp_path)
        seen.append((temporary.is_temporary(name), (tmp_path / name).read_bytes()))

    publish.publish(tmp_path / "a", b"data", example.FAST, before=look)
    assert seen == [(True, b"data")]


def test_system_without_namespaces_still_has_a_name(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", missing)
        name = temporary._machine.__wrapped__()
    assert len(name) == 8 and int(name, 16) >= 0


def test_leftovers_of_processes_that_cannot_be_asked_go_by_age(tmp_path, monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    names = [f".a.{temporary._machine()}-4242-{digit * 16}.tmp" for digit in "01"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    old = time.time() - temporary.STALE_SECONDS - 60
    os.utime(tmp_path / names[0], (old, old))
    assert temporary.remove_leftovers(tmp_path) == 1
    assert os.listdir(tmp_path) == [names[1]]


def test_where_fsync_stops_at_the_cache_of_the_drive_more_is_asked(tmp_path, monkeypatch):
    """As on macOS; here another harmless request stands for the one that it has."""
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", fcntl.F_GETFD, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("not enough there"))
    asked = []
    original = fcntl.fcntl

    def note(descriptor, request):
        asked.append(request)
        return original(descriptor, request)

    monkeypatch.setattr(fcntl, "fcntl", note)
    with open(tmp_path / "a", "wb") as file:
        system.DISK.fsync(file.fileno())
    assert asked == [fcntl.F_GETFD]


def test_directory_that_fails_to_sync_is_an_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        system.DISK.fsync_directory(str(tmp_path))
