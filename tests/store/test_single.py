import errno
import os

import h5py
import numpy as np
import pytest
import xarray
from store import example

from jaxlens import errors, schema
from jaxlens.files import publish, system
from jaxlens.store import reader, shard_contents, single
from jaxlens.store.hdf5 import draft, reading

SHARDS, ROWS = 4, 24
TOTAL = SHARDS * ROWS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    example.write_run(out, SHARDS, ROWS, "full")
    with reader.open_run(out) as opened:
        yield opened


class Full(system.Disk):
    """Refuses every write from the n-th on, and counts them."""

    def __init__(self, allowed=10**9):
        self.count = 0
        self._allowed = allowed

    def write_at(self, descriptor, data, at):
        self.count += 1
        if self.count > self._allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write_at(descriptor, data[:1000], at)

    def fsync_directory(self, path):
        pass


def write(run, path, disk=example.FAST, start=0, stop=TOTAL, layers=range(4)):
    return single.write(run, path, run.names, list(layers), start, stop, disk)


def test_one_file_has_every_row_as_the_shards_store_it(run, tmp_path):
    size = write(run, tmp_path / "all.h5")
    assert size == (tmp_path / "all.h5").stat().st_size
    parts = [example.compute_rows(shard, ROWS, "full") for shard in range(SHARDS)]
    with h5py.File(tmp_path / "all.h5") as file:
        assert file.attrs["spec_hash"] == run.spec_hash
        for name in run.names:
            stored = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(file[name][:], stored, strict=True)
            assert file[name].fletcher32
            assert file[name].attrs["units"] == schema.QUANTITIES[name].unit
    with xarray.open_dataset(tmp_path / "all.h5") as opened:
        np.testing.assert_array_equal(opened.row, np.arange(TOTAL))
        assert list(opened.layer_name.values) == list(example.LAYER_NAMES)
        np.testing.assert_array_equal(opened.kl_final, run["kl_final"][:])
        masked = run.to_xarray()
        always = {"token", "top_id"}  # every row of a real run has them
        for name in set(run.names) - always:
            np.testing.assert_array_equal(opened[name].values, masked[name].values, strict=True)
        assert int(opened.rank_copy.isnull().sum()) == (run["rank_copy"][:] == 0).sum() > 0


def test_one_file_passes_the_checks_of_our_own_reader(run, tmp_path):
    write(run, tmp_path / "all.h5")
    with reading.open_image((tmp_path / "all.h5").read_bytes()) as found:
        assert shard_contents.read_form(found).columns == run._shards.form.columns


def test_chosen_rows_and_layers_keep_their_numbers_and_names(run, tmp_path):
    write(run, tmp_path / "some.h5", start=30, stop=71, layers=[3, 0])
    with xarray.open_dataset(tmp_path / "some.h5") as found:
        np.testing.assert_array_equal(found.row, np.arange(30, 71))
        np.testing.assert_array_equal(found.layer, [3, 0])
        assert list(found.layer_name.values) == ["h.2", "input"]
        np.testing.assert_array_equal(found.rank_input, run["rank_input"][30:71][:, [3, 0]])


@pytest.mark.parametrize("most", [1, 1000, 1 << 20])
def test_bytes_do_not_depend_on_the_size_of_pieces(run, tmp_path, monkeypatch, most):
    write(run, tmp_path / "a.h5")
    monkeypatch.setattr(single, "BATCH_BYTES", most)
    write(run, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("times", [20, pytest.param(60, marks=pytest.mark.long)])
def test_a_disk_that_is_full_at_any_write_leaves_nothing_and_does_not_end_the_process(
    run, tmp_path, times
):
    counting = Full()
    write(run, tmp_path / "all.h5", counting)
    (tmp_path / "all.h5").unlink()
    for allowed in range(0, counting.count, max(1, counting.count // times)):
        with pytest.raises(errors.StorageError, match="No space left"):
            write(run, tmp_path / "all.h5", Full(allowed))
        assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_anything_is_written(run, tmp_path):
    class Small(Full):
        def free_bytes(self, path):
            return 1000

    disk = Small()
    with pytest.raises(errors.StorageError, match="1000 are"):
        write(run, tmp_path / "all.h5", disk)
    assert disk.count == 0 and list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_not_replaced(run, tmp_path):
    class Rival(Full):
        def link(self, source, target):
            (tmp_path / "all.h5").write_text("mine")
            super().link(source, target)

    with pytest.raises(errors.ConfigError, match="exists"):
        write(run, tmp_path / "all.h5", Rival())
    assert [path.name for path in tmp_path.iterdir()] == ["all.h5"]
    assert (tmp_path / "all.h5").read_text() == "mine"


def test_a_draft_reads_back_what_the_disk_refused(tmp_path):
    with pytest.raises(errors.StorageError), publish.file_descriptor(tmp_path / "x") as descriptor:
        file = draft.Draft(tmp_path / "x", descriptor, Full(1))
        file.write(b"a" * 1000)
        file.seek(990)
        file.write(b"b" * 20)
        file.seek(5, os.SEEK_CUR)
        file.write(b"c" * 5)
        assert file.seek(0, os.SEEK_END) == 1020
        file.seek(985)
        assert file.read(100) == b"aaaaa" + b"b" * 20 + b"\0" * 5 + b"c" * 5
        file.truncate(995)
        assert file.seek(0, os.SEEK_END) == 995
        file.check()
