"""Runs in object stores, against a server of the protocol of S3."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import object_server
import pytest
from store import example
from store.objects import object_run

from jaxlens import errors
from jaxlens.store import (
    finalize,
    layout,
    reader,
    records,
    run_directory,
    segments,
    shards,
    storage,
    verify,
)
from jaxlens.store.objects import client, commit, mirror, names

SHARDS, ROWS = object_run.SHARDS, object_run.ROWS


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Every file of the same run in a directory."""
    out = tmp_path_factory.mktemp("expected") / "run"
    example.write_run(out, SHARDS, ROWS)
    return example.tree(out)


def script(*words):
    """What a process of ``object_run.py`` prints."""
    path = os.pathsep.join(str(Path(__file__).parents[up]) for up in (2, 3))
    env = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name("object_run.py"), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [int(word) for word in done.stdout.split()]


def flip_a_bit(store, name):
    raw = bytearray(store.get(name, 1 << 30)[0])
    raw[len(raw) // 2] ^= 1
    store.put(name, bytes(raw))


def record_of(store, shard):
    found = commit.read_record(store, shard)
    assert found is not None
    return found


def test_a_run_has_the_same_bytes_as_in_a_directory(url, expected):
    assert object_run.write_run(url) == (list(range(SHARDS)), [])
    assert object_run.tree(url) == expected
    assert object_run.write_run(url) == ([], [])
    assert object_run.tree(url) == expected


def test_it_is_read_as_from_a_directory(url, tmp_path):
    object_run.write_run(url)
    example.write_run(tmp_path, SHARDS, ROWS)
    with reader.open_run(url) as run, reader.open_run(tmp_path) as other:
        for name in other.names:
            np.testing.assert_array_equal(run[name][:], other[name][:])
        assert all(np.array_equal(run.tally[name], other.tally[name]) for name in other.tally)
        assert run.path.name == "run" and url in repr(run)
        fetched = run.path
    del run
    assert not fetched.exists()
    for level in ("fast", "full"):
        with storage.readable(url) as run:
            assert verify.verify(run, level).ok


def test_bytes_are_fetched_when_they_are_read_and_bounded(url, monkeypatch):
    object_run.write_run(url)
    size = object_run.connect(url).head(names.image(record_of(object_run.connect(url), 0))).size
    monkeypatch.setattr(mirror, "KEPT_BYTES", int(1.5 * size))
    with storage.readable(url) as path:
        parts = [layout.shard_path(path, shard) for shard in range(SHARDS)]

        def held():
            return [part.stat().st_blocks > 0 for part in parts]

        assert verify.verify(path, "fast").ok
        assert held() == [False] * SHARDS
        assert not layout.token_path(path).stat().st_blocks
        with reader.open_run(path) as run:
            rows = [run["rank_input"][shard * ROWS : (shard + 1) * ROWS] for shard in range(SHARDS)]
            assert sum(held()) == 1 and held()[-1]
            run.close()
            again = [
                run["rank_input"][shard * ROWS : (shard + 1) * ROWS] for shard in range(SHARDS)
            ]
        np.testing.assert_array_equal(rows, again)
        assert sum(held()) == 1


def test_an_image_without_a_record_is_no_shard(url, expected):
    spec_bytes = example.spec(SHARDS, ROWS)
    image = example.shard_image(spec_bytes, 1, SHARDS, ROWS, salt=3)
    entry = records.record(example.place(spec_bytes, 1, SHARDS, ROWS), ROWS, image)
    object_run.connect(url).put(names.image(entry), image)
    assert object_run.write_run(url) == (list(range(SHARDS)), [])
    store = object_run.connect(url)
    assert store.head(names.image(entry)) is not None  # nobody removes it
    store.delete(names.image(entry))
    assert object_run.tree(url) == expected


@pytest.mark.parametrize("salt", [0, 1])
def test_a_lost_image_comes_back_with_the_same_bits_only(url, expected, salt):
    object_run.write_run(url)
    store = object_run.connect(url)
    store.delete(names.image(record_of(store, 2)))
    with storage.readable(url) as run, pytest.raises(errors.MissingError, match="half there"):
        reader.open_run(run)
    if salt:
        with pytest.raises(errors.DataError, match="its image is gone") as raised:
            object_run.write_run(url, salt=salt)
        assert f"{url}/shards/part-00002.json" in raised.value.message
    else:
        assert object_run.write_run(url) == ([2], [])
        assert object_run.tree(url) == expected


@pytest.mark.parametrize("name", ["MANIFEST", "summary.h5", "RUN.json", "tokens/tokens.bin"])
def test_damaged_objects_are_named(url, name):
    object_run.write_run(url)
    store = object_run.connect(url)
    flip_a_bit(store, name)
    with storage.readable(url) as run:
        assert name in dict(verify.verify(run).damaged)


def test_damaged_shards_are_named_and_computed_again(url, expected):
    object_run.write_run(url)
    store = object_run.connect(url)
    image = names.image(record_of(store, 1))
    flip_a_bit(store, image)
    with pytest.raises(errors.DataError) as raised, storage.readable(url) as run:
        assert dict(verify.verify(run).damaged).keys() == {"shards/part-00001.h5"}
        reader.open_run(run)["rank_input"][:]
    assert f"{url}/shards/part-00001.h5 is damaged" in raised.value.message
    store.delete(image)
    assert object_run.write_run(url) == ([1], [])
    assert object_run.tree(url) == expected


def test_a_damaged_image_is_replaced_when_it_is_computed_again(url, expected):
    object_run.write_run(url)
    store, spec_bytes = object_run.connect(url), example.spec(SHARDS, ROWS)
    image = names.image(record_of(store, 1))
    flip_a_bit(store, image)
    with storage.mirrored(url, writable=True) as opened:
        where = example.place(spec_bytes, 1, SHARDS, ROWS)
        right = example.shard_image(spec_bytes, 1, SHARDS, ROWS)
        assert opened.publish_shard(where, memoryview(right), ROWS) is None
        assert verify.verify(opened.path).ok
    assert object_run.tree(url) == expected


def test_the_record_of_another_shard_is_no_rival(url, expected):
    object_run.write_run(url)
    store = object_run.connect(url)
    store.put(layout.sidecar_file(2), store.get(layout.sidecar_file(1), layout.SMALL)[0])
    with pytest.raises(errors.DataError, match="record of another shard") as raised:
        object_run.write_run(url)
    assert "remove that object" in raised.value.hint
    store.delete(layout.sidecar_file(2))
    assert object_run.write_run(url) == ([2], [])
    assert object_run.tree(url) == expected


def test_messages_of_an_opened_run_have_its_url(url):
    object_run.write_run(url)
    store = object_run.connect(url)
    image = names.image(record_of(store, 1))
    flip_a_bit(store, image)
    opened = storage.opened(url, reader.open_run)
    with pytest.raises(errors.DataError) as raised:
        opened["rank_input"][:]
    assert raised.value.message.startswith(f"{url}/shards/part-00001.h5 is damaged")
    opened.close()


@pytest.mark.parametrize(("races", "rivals"), [(6, 3), pytest.param(60, 4, marks=pytest.mark.long)])
def test_rivals_with_equal_bits_leave_one_run(url, expected, races, rivals):
    assert script("race", url, races, rivals, 0) == [0]
    for number in range(races):
        assert object_run.tree(f"{url}/{number}") == expected


@pytest.mark.parametrize(("races", "rivals"), [(6, 3), pytest.param(60, 4, marks=pytest.mark.long)])
def test_rivals_with_other_bits_leave_the_first(url, races, rivals):
    assert script("race", url, races, rivals, 1) == [0]
    for number in range(races):
        # Whoever comes next finds every shard committed, and finishes the run.
        assert object_run.write_run(f"{url}/{number}") == ([], [])
        with storage.readable(f"{url}/{number}") as run:
            assert verify.verify(run).ok


def test_a_writer_is_told_that_other_bits_stand(url, expected):
    object_run.write_run(url, finish=False)
    store, spec_bytes = object_run.connect(url), example.spec(SHARDS, ROWS)
    image = example.shard_image(spec_bytes, 0, SHARDS, ROWS, salt=1)
    where = example.place(spec_bytes, 0, SHARDS, ROWS)
    with storage.mirrored(url, writable=True) as opened:
        standing = opened.publish_shard(where, memoryview(image), ROWS)
    assert standing == record_of(store, 0) and standing.sha256 not in names.image(
        records.record(where, ROWS, image)
    )
    object_run.write_run(url)
    assert object_run.tree(url) == expected


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.long)])
def test_killed_writers_resume_to_the_same_objects(url, kills):
    killed, _, wrong, failed = script("kill", url, kills, 5)
    assert (killed >= kills, wrong, failed) == (True, 0, 0)


def test_a_lost_answer_of_a_create_is_no_rival(url, behind, expected):
    behind("forgets-answers")
    assert object_run.write_run(url) == (list(range(SHARDS)), [])
    assert object_run.tree(url) == expected


def test_another_run_is_refused(url):
    object_run.write_run(url)
    other = pytest.raises(run_directory.AnotherRun, match="shard_tokens")
    with storage.mirrored(url, writable=True) as opened, other:
        run_directory.create_run(opened.path, example.spec(SHARDS, ROWS + 1), opened.disk)


def test_a_folder_of_something_else_is_refused(url):
    object_run.connect(url).put("notes.txt", b"mine")
    with pytest.raises(errors.ConfigError, match=r"not empty .* notes.txt") as raised:
        object_run.write_run(url)
    assert url in raised.value.message
    assert [name for name, _ in object_run.connect(url).list()] == ["notes.txt"]


@pytest.mark.parametrize("fault", ["ignores-conditions", "unknown-conditions"])
def test_a_bucket_without_conditional_writes_is_refused(url, behind, fault, monkeypatch):
    monkeypatch.setattr(client, "RETRY_SECONDS", 2.0)  # errors such as 501 are tried again
    behind(fault)
    with pytest.raises(errors.ConfigError, match="a bucket without conditional writes"):
        object_run.write_run(url)
    assert not list(object_run.connect(url).list())


@pytest.mark.parametrize("fault", ["denies", "denies-writes"])
def test_denied_access_is_one_line(url, behind, fault):
    behind(fault)
    with pytest.raises(errors.StorageError, match=f"^{url}.*: access denied$") as raised:
        object_run.write_run(url)
    assert "AWS_ACCESS_KEY_ID" in raised.value.hint and object_server.SECRET not in str(
        vars(raised.value)
    )


def test_a_bucket_that_does_not_exist_is_one_line(bucket):
    with pytest.raises(errors.MissingError, match="there is no bucket nowhere-to-be-found"):
        object_run.write_run("s3://nowhere-to-be-found/run")


def test_a_server_that_is_gone_is_one_line(url, monkeypatch):
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.5)
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", f"http://{object_server.HOST}:{object_server.free_port()}"
    )
    with pytest.raises(errors.StorageError, match=f"^{url}: ") as raised:
        object_run.write_run(url)
    assert "\n" not in raised.value.message and "check the network" in raised.value.hint


def test_a_full_folder_for_mirrors_is_one_line(url, monkeypatch):
    object_run.write_run(url)

    def full(self, name, target):
        with target.open("xb"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with storage.readable(url) as run, monkeypatch.context() as patched:
        patched.setattr(client.Client, "download", full)
        with pytest.raises(
            errors.StorageError, match=r"cannot fetch into .*: No space left"
        ) as got:
            reader.open_run(run)
        assert "TMPDIR" in got.value.hint
        patched.undo()
        reader.open_run(run)["rank_input"][:]


def test_listings_of_many_pages_are_read_to_the_end(url):
    store = object_run.connect(url)
    many = [f"environment/host-{number}.json" for number in range(1_050)]
    for name in many:
        store.put(name, b"{}")
    with storage.readable(url) as run:
        assert layout.note_names(run) == sorted(name.partition("/")[2] for name in many)


def test_segments_are_derived_and_spare_their_records(url, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SHARDS_PER_SEGMENT", 4)
    object_run.write_run(url, 10)
    example.write_run(tmp_path / "run", 10, ROWS)
    assert object_run.tree(url) == example.tree(tmp_path / "run")
    with storage.readable(url) as run:
        with reader.open_run(run) as opened:
            assert not layout.sidecar_path(run, 9).stat().st_blocks
            assert opened["rank_input"][:].shape == (10 * ROWS, example.N_LAYERS)
        assert shards.complete(run, layout.read_spec(run), trusting=False)
        assert layout.sidecar_path(run, 9).stat().st_blocks
        assert segments.existing(run) == [0, 1, 2]
        assert verify.verify(run).ok


def test_what_others_commit_is_seen(url, expected):
    with storage.mirrored(url, writable=True) as early:
        spec = run_directory.create_run(early.path, example.spec(SHARDS, ROWS), early.disk)
        object_run.write_run(url, finish=False)
        assert len(shards.missing_shards(early.path, SHARDS, spec.hash, "fast")) == SHARDS
        early.refresh_shard(2)
        assert shards.missing_shards(early.path, SHARDS, spec.hash, "fast") == [0, 1, 3]
        early.refresh()
        assert not shards.missing_shards(early.path, SHARDS, spec.hash, "full")
        finalize.finalize(early.path, early.disk)
    assert object_run.tree(url) == expected
