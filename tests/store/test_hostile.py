"""Run directories that somebody made to harm: refused, without reading elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from store import example

from jaxlens import errors
from jaxlens.store import access, hdf, layout, reader, records, shards, verify

ROWS = 8


def external_storage(file, _):
    secret = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("kl_final", (ROWS, 4), "f2", external=secret)


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
    for number in range(hdf.MAX_OBJECTS + 1):
        file.create_group(f"g{number}")


def named_type(file, _):
    file["type"] = np.dtype("f8")


def huge_attribute(file, _):
    del file.attrs["skipped"]
    file.attrs["spec_hash"] = np.zeros(1000)


ATTACKS = [
    *(external_storage, external_link, soft_link, virtual_dataset, shape_bomb, contiguous_bomb),
    *(chunk_bomb, foreign_filter, text_of_any_length, loop, many_objects, named_type),
    huge_attribute,
]


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path / "run", 2, ROWS)
    return tmp_path / "run"


def recommit(out, shard):
    """Makes record and manifest fit a shard that was changed."""
    data = layout.shard_path(out, shard).read_bytes()
    place = layout.read_record(out, shard).place()
    entry = records.record(place, ROWS, data)
    layout.sidecar_path(out, shard).write_bytes(records.encode(entry))
    entries = [layout.read_record(out, i) for i in range(2)]
    (out / layout.MANIFEST).write_bytes(records.manifest(place.spec_hash, entries))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_shard_made_to_harm_is_refused_by_every_reader(out, attack):
    with h5py.File(layout.shard_path(out, 1), "r+") as file:
        if attack not in (loop, many_objects, named_type, huge_attribute):
            del file["kl_final"]
        attack(file, out.parent)
    recommit(out, 1)
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match="part-00001"):
        run["kl_final"][:]
    assert shards.missing_shards(out, 2, layout.read_spec(out).hash) == [1]
    assert any("part-00001" in name for name, _ in verify.verify(out).damaged)


def test_bombs_take_little_memory(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w", libver=("v110", "v110")) as file:
        shape_bomb(file, tmp_path)
        made = file.create_dataset(
            "zip", (2**27,), "u1", chunks=(2**23,), compression="gzip", shuffle=True
        )
        made[:] = 0
    script = (
        "import resource, sys; from pathlib import Path; from jaxlens.store import hdf;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak();\n"
        "try: hdf.read_arrays(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, peak() - before)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, tmp_path / "bomb.h5"]
    name, grown = subprocess.check_output(command, cwd=root, text=True).split()
    assert name == "DataError" and int(grown) < 50 * 1024


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
        access.opened(path) as descriptor,
        pytest.raises(errors.DataError, match="replaced"),
    ):
        hdf.open_file(other, descriptor)
