"""Run directories made to harm: refused in little memory, without reading elsewhere."""

import errno
import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from store import example

from jaxlens import config, errors, schema
from jaxlens.files import contained
from jaxlens.store import finalize, layout, reader, records, shard_contents, shards, verify
from jaxlens.store.hdf5 import reading, structure

ROWS = 8
MAX_MIB = 64
"""Memory beyond what reading a sound run takes; allocators differ by some MiB from run to run, and
attacks ask for hundreds."""


def external_storage(file, _):
    secret = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("kl_final", (ROWS, 4), "f2", external=secret)


def test_h5py_alone_reads_a_file_outside_and_a_claim_without_data(tmp_path):
    """Why `structure` looks at a file first: h5py follows what it says."""
    (tmp_path / "secret").write_bytes(b"secret!!")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 8)]
        file.create_dataset("kl_final", (8,), "u1", external=outside)
        file.create_dataset("claim", (2**24,), "u1", chunks=(2**12,))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["kl_final"][:].tobytes() == b"secret!!"
        assert len(file["claim"][:]) == 2**24 > 1000 * (tmp_path / "a.h5").stat().st_size
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(ValueError):
        structure.datasets(file, virtual=False)


def external_link(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.zeros((ROWS, 4), "f2")
    file["kl_final"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def soft_link(file, _):
    file["kl_final"] = h5py.SoftLink("/rank_input")


def virtual_dataset(file, folder):
    layout = h5py.VirtualLayout((ROWS, 4), "f2")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (ROWS, 4))
    file.create_virtual_dataset("kl_final", layout)


def shape_bomb(file, _):
    file.create_dataset("kl_final", (2**45, 4), "f2", chunks=(64, 4))


def contiguous_bomb(file, _):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_INCR)
    space = h5py.h5s.create_simple((2**40,))
    h5py.h5d.create(file.id, b"kl_final", h5py.h5t.NATIVE_FLOAT, space, dcpl=plan)


def chunk_bomb(file, _):
    made = file.create_dataset("kl_final", (2**28, 1), "f2", chunks=(2**27, 1), compression=1)
    made[:1] = 0


def foreign_filter(file, _):
    file.create_dataset("kl_final", data=np.zeros((ROWS, 4), "f2"), compression="lzf")


def text_of_any_length(file, _):
    file.create_dataset("kl_final", data=["x"] * ROWS, dtype=h5py.string_dtype())


def loop(file, _):
    file["tally/again"] = file["/"]


def many_objects(file, _):
    for number in range(structure.MAX_OBJECTS + 1):
        file.create_group(f"g{number}")


def named_type(file, _):
    file["type"] = np.dtype("f8")


def huge_attribute(file, _):
    del file.attrs["skipped"]
    file.attrs["spec_hash"] = np.zeros(1000)


def wide_row(file, _):
    zeros(file, "kl_final", (ROWS, 2**26), "f2", (1, 2**21))


def other_type(file, _):
    file["kl_final"] = np.zeros((ROWS, 4), "i2")


def other_axes(file, _):
    file["kl_final"] = np.zeros((ROWS, 4, 1), "f2")


def other_layers(file, _):
    zeros(file, "kl_final", (ROWS, 2**20), "f2", (1, 2**20))


def expanding_labels(file, _):
    del file["layer_name"]
    zeros(file, "layer_name", (2**23,), "S2", (2**22,))


def wide_labels(file, _):
    del file["layer_name"]
    zeros(file, "layer_name", (4,), "S8000000", (1,))


def expanding_tally(file, folder):
    (folder / "run" / "summary.h5").unlink(missing_ok=True)
    del file["tally/token_sum_ln_rank_input"]
    zeros(file["tally"], "token_sum_ln_rank_input", (2**26, 4), "i8", (2**17, 4))


def dataset_of_many_names(file, _):
    zeros(file, "kl_final", (2**24, 4), "f2", (2**17, 4))
    for number in range(structure.MAX_OBJECTS - 100):
        file[f"tally/again{number}"] = file["kl_final"]


def group_of_many_names(file, _):
    for number in range(900):
        file[f"g{number}"] = file["tally"]


def zeros(group, name, shape, dtype, chunk):
    """A dataset that takes a thousandth of its size, written in no time."""
    made = group.create_dataset(name, shape, dtype, chunks=chunk, compression="gzip")
    packed = zlib.compress(bytes(math.prod(chunk) * made.dtype.itemsize), 9)
    for place in np.ndindex(*(n // c for n, c in zip(shape, chunk, strict=True))):
        made.id.write_direct_chunk(tuple(i * c for i, c in zip(place, chunk, strict=True)), packed)


def recommit(out, shard, rows=ROWS, **changes):
    """Makes record and manifest fit a shard that was changed."""
    data = layout.shard_path(out, shard).read_bytes()
    place = records.ShardRange(**vars(layout.read_record(out, shard).shard_range()) | changes)
    entry = records.record(place, rows, data)
    layout.sidecar_path(out, shard).write_bytes(records.encode(entry))
    entries = [layout.read_record(out, i) for i in range(2)]
    (out / layout.MANIFEST).write_bytes(example.manifest(place.spec_hash, entries))


def in_shard(attack):
    """An attack on a shard of a run that is consistent otherwise."""

    def harm(out):
        with h5py.File(layout.shard_path(out, 1), "r+") as file:
            if "kl_final" in str(attack.__code__.co_consts):
                del file["kl_final"]
            attack(file, out.parent)
        recommit(out, 1)

    harm.__name__ = attack.__name__
    return harm


OF_STRUCTURE = [
    *(external_storage, external_link, soft_link, virtual_dataset, shape_bomb, contiguous_bomb),
    *(chunk_bomb, foreign_filter, text_of_any_length, wide_row, dataset_of_many_names, loop),
    *(many_objects, named_type, huge_attribute, group_of_many_names),
]
OF_MEANING = [
    *(other_type, other_axes, other_layers, expanding_labels, wide_labels, expanding_tally),
]


def expanding_rows(out):
    """The second shard has two million rows of zeros, a thousandth of that on disk."""
    rows = 2**21
    with h5py.File(layout.shard_path(out, 1), "r+") as file:
        for name, item in list(file.items()):
            if name in schema.QUANTITIES:
                shape, dtype = (rows, *item.shape[1:]), item.dtype
                del file[name]
                zeros(file, name, shape, dtype, (2**17, *shape[1:]))
        del file["row"]
        file.create_dataset("row", data=np.arange(ROWS, ROWS + rows), compression="gzip")
        file.attrs["token_stop"] = np.int64(ROWS + rows)
    recommit(out, 1, rows, token_stop=ROWS + rows)


def more_rows_than_bytes(out):
    recommit(out, 1, 2**61, token_stop=ROWS + 2**61)


def _vocabulary(out, size):
    """A run whose spec has so many tokens, and tallies of zeros that fit it."""
    model = {"seed": 0, "architecture": example.ARCHITECTURE | {"vocab_size": size}}
    for path in [p for p in out.rglob("*") if p.is_file()]:
        path.unlink()
    with pytest.raises(errors.DataError, match=r"tally|its vocabulary has"):
        example.write_run(out, 2, ROWS, more={"model": model})
    for shard in range(2):
        with h5py.File(layout.shard_path(out, shard), "r+") as file:
            for name, shape in {
                "token_count": (size,),
                "token_sum_ln_rank_input": (size, 4),
            }.items():
                del file["tally"][name]
                zeros(file["tally"], name, shape, "i8", (2**16, *shape[1:]))
        recommit(out, shard)


def tallies_of_a_huge_vocabulary(out):
    _vocabulary(out, 2**22)


def tallies_of_a_large_vocabulary(out):
    """Large tallies, consistent to the last file: sound, yet in little memory."""
    _vocabulary(out, 11 * 2**16)
    finalize.finalize(out)


def expanding_summary(out):
    raw = (out / "summary.h5").read_bytes()[: -reading.SEAL_BYTES]
    (out / "summary.h5").write_bytes(raw)
    with h5py.File(out / "summary.h5", "r+") as file:
        expanding_tally(file, out)  # in the same place as in a shard
    (out / "summary.h5").write_bytes(reading.seal((out / "summary.h5").read_bytes()))


def summary_of_huge_attributes(out):
    with h5py.File(out / "summary.h5", "w", libver=("v110", "v110")) as file:
        file.attrs.create("spec_hash", np.ones(2**25, "i2"))
        file["layer"] = np.arange(4)
        file["layer"].attrs.create("long_name", np.ones(2**25, "i2"))
    (out / "summary.h5").write_bytes(reading.seal((out / "summary.h5").read_bytes()))


def _index(out, source):
    """An index whose rows come from other files, as many as are there."""
    os.mkfifo(out.parent / "pipe-0")  # whoever opens it waits for ever
    raw = (out / "index.h5").read_bytes()[: -reading.SEAL_BYTES]
    (out / "index.h5").write_bytes(raw)
    with h5py.File(out / "index.h5", "r+") as file:
        del file["kl_final"]
        endless = h5py.h5s.create_simple((ROWS, 4), (h5py.h5s.UNLIMITED, 4))
        endless.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (ROWS, 1), (ROWS, 4))
        part = endless if "%" not in source else h5py.h5s.create_simple((ROWS, 4))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_virtual(endless, source.encode(), b"secret", part)
        h5py.h5d.create(file.id, b"kl_final", h5py.h5t.IEEE_F16LE, endless, dcpl=plan)
    (out / "index.h5").write_bytes(reading.seal((out / "index.h5").read_bytes()))


def index_of_a_pipe(out):
    _index(out, str(out.parent / "pipe-%b"))


def index_without_end(out):
    _index(out, "shards/part-00000.h5")


def spec_of_many_values(out):
    (out / "RUN.json").write_bytes(b'{"plan":{"n_shards":2},"x":[' + b"{}," * 1_390_000 + b"1]}")


def spec_of_one_long_text(out):
    text = "\U0001f600".encode() + b"x" * (layout.LARGE - 100)
    (out / "RUN.json").write_bytes(b'{"plan":{"n_shards":2},"x":"' + text + b'"}')


def tokens_of_many_values(out):
    (out / "tokens/TOKENS.json").write_bytes(b'{"x":[' + b"[]," * 1_390_000 + b"1]}")


def tokens_of_deep_values(out):
    (out / "tokens/TOKENS.json").write_bytes(b'{"x":' * 50_000 + b"1" + b"}" * 50_000)


def record_of_many_values(out):
    (out / "shards/part-00001.json").write_bytes(b'{"x":[' + b"[]," * 20_000 + b"1]}")


def manifest_of_empty_lines(out):
    (out / "MANIFEST").write_bytes(b"0" * 64 + b"\n" * (layout.LARGE - 64))


def endless_manifest(out):
    os.truncate(out / "MANIFEST", 1 << 40)


def manifest_beside_the_last_shard_that_a_name_can_have(out):
    (out / "shards/part-999999999.json").write_bytes(b"")
    os.truncate(out / "MANIFEST", 100 << 30)


def spec_of_many_shards(out):
    """Says that a hundred million shards belong to the run, of which two are there."""
    for path in [p for p in out.rglob("*") if p.is_file()]:
        path.unlink()
    with pytest.raises(errors.MissingError):
        example.write_run(out, 2, ROWS, more={"plan": {"n_shards": 10**8}})
    spec_hash = config.spec_hash((out / "RUN.json").read_bytes())
    entries = [layout.read_record(out, i) for i in range(2)]
    (out / "MANIFEST").write_bytes(example.manifest(spec_hash, entries))


ATTACKS = [
    *(
        (in_shard(attack), "shards/part-00001.h5", "part-00001")
        for attack in OF_STRUCTURE + OF_MEANING
    ),
    (expanding_rows, "shards/part-00001.h5", ""),
    (more_rows_than_bytes, "shards/part-00001.h5", "part-00001.h5"),
    (tallies_of_a_huge_vocabulary, "shards/part-00000.h5", "part-00000.h5"),
    (tallies_of_a_large_vocabulary, "", ""),
    (expanding_summary, "summary.h5", "summary.h5"),
    (summary_of_huge_attributes, "summary.h5", "summary.h5"),
    (index_of_a_pipe, "index.h5", ""),
    (index_without_end, "index.h5", ""),
    (spec_of_many_values, "RUN.json", "RUN.json"),
    (spec_of_one_long_text, "RUN.json", "part-00000.json"),
    (tokens_of_many_values, "tokens/TOKENS.json", ""),
    (tokens_of_deep_values, "tokens/TOKENS.json", ""),
    (record_of_many_values, "shards/part-00001.json", "part-00001.json"),
    (manifest_of_empty_lines, "MANIFEST", "MANIFEST"),
    (endless_manifest, "MANIFEST", "MANIFEST"),
    (manifest_beside_the_last_shard_that_a_name_can_have, "MANIFEST", "MANIFEST"),
    (spec_of_many_shards, "MANIFEST", "lacks 99999998"),
]

READ = """
import json, os, resource, signal, sys
import numpy as np
from jaxlens import errors
from jaxlens.store import layout, reader, shards, verify

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def rows(run):
    for name in run.names:
        column = run[name]
        for start in range(0, len(column), 2**18):
            column[start : start + 2**18]
        column[::9999], column[np.arange(0, len(column), 9999)]

def totals(run):
    run.tally, run.summary()

def use(out):
    refused = []
    for act in (rows, totals):
        try:
            with reader.open_run(out) as run:
                act(run)
        except errors.JaxlensError as error:
            refused.append(error.message)
    return refused

def check(out):
    return verify.verify(out).damaged

def alone(act, out):  # a process for each, so that its peak begins at what it has
    listen, tell = os.pipe()
    if not os.fork():
        signal.alarm(30)
        before = peak()
        found = act(out)
        with open(tell, "w") as told:
            json.dump([peak() - before, found], told)
        os._exit(0)
    os.close(tell)
    with open(listen) as told:
        said = told.read()
    return json.loads(said) if not (status := os.wait()[1]) else [0, f"died: {status}"]

use(sys.argv[1]), check(sys.argv[1])
sound = {act: alone(act, sys.argv[1])[0] for act in (use, check)}
for line in sys.stdin:
    for act in sound:
        grown, found = alone(act, line.rstrip())
        print(json.dumps([grown - sound[act], found]), flush=True)
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Has a run read in a process of its own; returns what that took and said."""
    sound = tmp_path_factory.mktemp("sound") / "run"
    example.write_run(sound, 2, ROWS)
    command = [sys.executable, "-c", READ, str(sound)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes) as process:

        def read(out):
            print(out, file=process.stdin, flush=True)
            return [json.loads(process.stdout.readline()) for _ in range(2)]

        yield read
        process.stdin.close()


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path / "run", 2, ROWS)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("attack", "culprit", "refusal"),
    [
        pytest.param(
            *each, id=each[0].__name__, marks=[pytest.mark.long] * (each[0] is expanding_rows)
        )
        for each in ATTACKS
    ],
)
def test_attack_is_named_and_refused_in_little_memory(out, stranger, attack, culprit, refusal):
    attack(out)
    (grown, refused), (more, damaged) = stranger(out)
    assert max(grown, more) < MAX_MIB * 1024
    assert any(name == culprit for name, _ in damaged) if culprit else not damaged, damaged
    assert all("\n" not in what for _, what in damaged)
    assert any(refusal in message for message in refused) if refusal else not refused, refused
    assert [list(finding) for finding in verify.verify(out).damaged] == damaged


@pytest.mark.parametrize("attack", OF_STRUCTURE, ids=lambda attack: attack.__name__)
def test_shard_of_a_harmful_structure_counts_as_missing(out, attack):
    in_shard(attack)(out)
    assert shards.missing_shards(out, 2, layout.read_spec(out).hash) == [1]


@pytest.mark.parametrize("name", ["RUN.json", "MANIFEST", "shards/part-00001.h5", "summary.h5"])
def test_links_and_pipes_in_a_run_are_refused_without_blocking(out, name):
    whole = (out / name).read_bytes()
    (out.parent / "elsewhere").write_bytes(whole)
    for make in (lambda p: p.symlink_to(out.parent / "elsewhere"), os.mkfifo, os.mkdir):
        (out / name).unlink()
        make(out / name)
        found = verify.verify(out)
        assert any(where == name for where, _ in found.damaged), found
        with pytest.raises(errors.DataError), reader.open_run(out) as run:
            _ = run.tally
        (out / name).rmdir() if (out / name).is_dir() else (out / name).unlink()
        (out / name).write_bytes(whole)
    assert verify.verify(out).ok


def test_shards_folder_that_leads_out_of_the_run_is_refused(out):
    (out / "shards").rename(out.parent / "shards")
    (out / "shards").symlink_to(out.parent / "shards")
    with pytest.raises(errors.DataError, match="leads out"):
        reader.open_run(out)
    assert not verify.verify(out).ok


def test_run_directory_itself_may_be_a_link(out):
    (out.parent / "link").symlink_to(out)
    with reader.open_run(out.parent / "link") as run:
        assert len(run["kl_final"][:]) == 2 * ROWS
    assert verify.verify(out.parent / "link").ok


def test_oversized_records_are_not_read(out):
    os.truncate(layout.sidecar_path(out, 0), layout.SMALL + 1)
    with pytest.raises(errors.DataError, match="bytes, at most"):
        layout.read_record(out, 0)


def test_file_that_is_replaced_while_it_is_opened_is_refused(out):
    path, other = layout.shard_path(out, 0), layout.shard_path(out, 1)
    with (
        contained.opened(path) as descriptor,
        pytest.raises(errors.DataError, match="replaced"),
    ):
        reading.open_file(other, descriptor)


def test_system_that_refuses_to_read_is_no_damage_and_a_bad_sector_is(out, monkeypatch):
    with pytest.raises(errors.StorageError, match="name too long"):
        contained.size(out / ("x" * 300))
    folder = os.open(out, os.O_RDONLY)
    with pytest.raises(errors.StorageError, match="directory"):
        contained.sha256(out, folder, 1)
    os.close(folder)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with (
        contained.opened(out / "RUN.json") as descriptor,
        pytest.raises(errors.DataError, match="cannot be read"),
    ):
        contained.sha256(out / "RUN.json", descriptor)


def test_arrays_that_claim_more_than_their_reader_allows_are_refused(out):
    assert set(reading.read_arrays(out / "tokens/index.h5", limit=16)[0]) == {"document_start"}
    with pytest.raises(errors.DataError, match="claims 16 bytes, at most 15"):
        reading.read_arrays(out / "tokens/index.h5", limit=15)


def test_shard_that_rivals_keep_replacing_is_given_up(out, monkeypatch):
    entry, tried = layout.read_record(out, 0), []

    def replaced(path, descriptor):
        tried.append(path)
        raise reading.Replaced("replaced")

    monkeypatch.setattr(reading, "open_file", replaced)
    with pytest.raises(errors.DataError, match="replaced"):
        shards.open_shard(out, entry)
    assert len(tried) == shards.TRIES


def test_shard_of_a_later_format_is_refused(out):
    with h5py.File(layout.shard_path(out, 1), "r+") as file:
        file.attrs["format_version"] = np.int64(schema.FORMAT_VERSION + 1)
    recommit(out, 1)
    with pytest.raises(errors.DataError, match=f"format {schema.FORMAT_VERSION + 1} is unknown"):
        shards.check(out, 1, layout.read_spec(out).hash)


def test_file_may_be_closed_twice(out):
    contents = shards.open_shard(out, layout.read_record(out, 1))
    assert shard_contents.skipped(contents) == {"empty": 1}
    contents.close()
    contents.close()
