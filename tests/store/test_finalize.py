import dataclasses
import os

import h5py
import numpy as np
import pytest
import xarray
from store import example

from jaxlens import errors
from jaxlens.store import commit, finalize, fold, layout, manifest, reader, run_directory
from jaxlens.store.hdf5 import images
from jaxlens.tally import definitions


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path, 4, 8)
    return tmp_path


def test_finalizing_again_gives_the_same_bytes_and_writes_nothing(out):
    before = example.tree(out)
    times = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    finalize.finalize(out)
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == times
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).write_bytes(b"damaged")
        finalize.finalize(out)
    assert example.tree(out) == before
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).unlink()
    finalize.finalize(out)
    assert example.tree(out) == before


def test_merged_tallies_are_the_sums_of_those_of_the_shards(out):
    found = finalize.finalize(out)
    assert set(found) == {tally.name for tally in definitions.BASIC}
    for name, total in found.items():
        parts = [example.compute_tallies(shard)[name] for shard in range(4)]
        np.testing.assert_array_equal(total, sum(parts), strict=True)


def test_manifest_lists_the_spec_and_each_shard_in_order(out):
    table = manifest.read(out, 4)
    spec_hash, entries = table.spec_hash, list(table)
    assert spec_hash == layout.read_spec(out).hash
    assert [entry.shard for entry in entries] == [0, 1, 2, 3]
    assert entries == [layout.read_record(out, shard) for shard in range(4)]
    assert len((out / "MANIFEST").read_bytes().splitlines()) == 5


@pytest.mark.filterwarnings("error")
def test_summary_opens_in_xarray_with_units(out):
    merged = finalize.finalize(out)
    with xarray.open_dataset(out / "summary.h5") as found:
        assert found.attrs["n_tokens"] == 32 and found.attrs["n_shards"] == 4
        assert found.median_rank_input.dims == ("layer",)
        assert found.mean_kl_final.attrs["units"] == "nat"
        assert found.mean_kl_final.attrs["long_name"]
        assert list(found.layer_name.values) == list(example.LAYER_NAMES)
    with xarray.open_dataset(out / "summary.h5", group="tally") as found:
        for name, total in merged.items():
            np.testing.assert_array_equal(found[name], total)


def test_missing_shards_are_named_and_nothing_is_written(out):
    layout.shard_path(out, 2).unlink()
    (out / "MANIFEST").unlink()
    with pytest.raises(errors.MissingError, match=r"lacks 1 of 4 .* part-00002"):
        finalize.finalize(out)
    assert not (out / "MANIFEST").exists()


def test_damaged_tallies_are_a_data_error(out):
    path = layout.shard_path(out, 1)
    with h5py.File(path) as file:
        offset = file["tally/token_count"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(errors.DataError, match=r"part-00001\.h5 is damaged"):
        finalize.finalize(out)


def test_shards_that_do_not_follow_each_other_are_refused(out):
    example.replace_record(out, 2, token_start=17, rows=7)
    with pytest.raises(errors.DataError, match=r"part-00002\.h5 starts at token 17, not at 16"):
        finalize.finalize(out)


def test_index_of_a_run_that_has_grown_too_many_shards_is_removed(out, monkeypatch):
    monkeypatch.setattr(finalize, "MAX_INDEXED", 3)
    finalize.finalize(out)
    assert not (out / "index.h5").exists()


def test_run_of_an_empty_corpus_has_a_manifest_alone(tmp_path):
    run_directory.create_run(tmp_path, example.spec(n_shards=0))
    assert finalize.finalize(tmp_path) == {}
    spec_hash = layout.read_spec(tmp_path).hash
    assert (tmp_path / "MANIFEST").read_bytes() == example.manifest(spec_hash, [])
    assert not (tmp_path / "summary.h5").exists()


def test_nothing_is_left_beside_the_files_of_a_run(out):
    assert set(os.listdir(out)) == {
        *("RUN.json", "MANIFEST", "summary.h5", "index.h5"),
        *("shards", "tokens", "environment"),
    }
    names = [f"part-{i:05d}.{kind}" for i in range(4) for kind in ("h5", "json")]
    assert sorted(os.listdir(out / "shards")) == names


def test_shard_without_tokens_between_others_takes_no_rows_of_the_index(tmp_path):
    spec_bytes = example.spec(3, 8)
    run_directory.create_run(tmp_path, spec_bytes, example.FAST)
    for shard, (start, stop) in enumerate([(0, 8), (8, 8), (8, 16)]):
        place = example.place(spec_bytes, shard, 3, 8)
        place = dataclasses.replace(place, token_start=start, token_stop=stop)
        data = {"rank_input": example.compute_rows(shard, 8)["rank_input"][: stop - start]}
        tallies = example.compute_tallies(shard)
        if start == stop:
            tallies = {name: np.zeros_like(values) for name, values in tallies.items()}
        made = images.shard_image(place, data, tallies, example.LAYER_NAMES)
        commit.publish_shard(tmp_path, place, made, stop - start, example.FAST)
    finalize.finalize(tmp_path, example.FAST)
    with h5py.File(tmp_path / "index.h5") as index, reader.open_run(tmp_path) as run:
        np.testing.assert_array_equal(index["rank_input"][:], run["rank_input"][:])
        np.testing.assert_array_equal(index["row"][:], np.arange(16))


def test_shards_of_different_forms_are_refused(out):
    data = {"rank_input": example.compute_rows(2, 8)["rank_input"]}
    place = example.place(example.spec(4, 8), 2, 4, 8)
    made = images.shard_image(place, data, example.compute_tallies(2), example.LAYER_NAMES)
    commit.discard(out, 2)
    commit.publish_shard(out, place, made, 8, example.FAST)
    with pytest.raises(errors.DataError, match=r"part-00002\.h5.*not those of the first"):
        finalize.finalize(out)


def test_shards_that_never_come_to_rest_are_refused(out, monkeypatch):
    spec = layout.read_spec(out)
    derived = finalize.derive(out, lambda _, entries: fold.fold(out, spec, entries))
    assert finalize._is_of(out, derived)
    monkeypatch.setattr(finalize, "derive", lambda *_: derived)
    example.replace_record(out, 1, tokens_sha256="e" * 64)
    with pytest.raises(errors.DataError, match="shards change while"):
        finalize.finalize(out)


def test_tallies_without_sense_are_a_data_error(out):
    """Sound to the last bit, and impossible: fewer values than none."""
    tallies = example.compute_tallies(1)
    tallies["ln_rank_histogram"][..., 0] = -(2**50)
    place = example.place(example.spec(4, 8), 1, 4, 8)
    made = images.shard_image(place, example.compute_rows(1, 8), tallies, example.LAYER_NAMES)
    commit.discard(out, 1)
    commit.publish_shard(out, place, made, 8, example.FAST)
    with pytest.raises(errors.DataError, match="damaged"):
        finalize.finalize(out)
    for name in ("MANIFEST", "summary.h5"):
        (out / name).unlink()
    with reader.open_run(out) as run, pytest.raises(errors.DataError, match="damaged"):
        run.summary()
