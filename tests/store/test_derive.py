import os

import h5py
import numpy as np
import pytest
import xarray
from store import example

from jaxlens import errors, schema
from jaxlens.store import derive, layout, records


@pytest.fixture
def out(tmp_path):
    example.write_run(tmp_path, 4, 8)
    return tmp_path


def test_finalizing_again_gives_the_same_bytes_and_writes_nothing(out):
    before = example.tree(out)
    times = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    derive.finalize(out)
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == times
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).write_bytes(b"damaged")
        derive.finalize(out)
    assert example.tree(out) == before
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).unlink()
    derive.finalize(out)
    assert example.tree(out) == before


def test_merged_tallies_are_the_sums_of_those_of_the_shards(out):
    found = derive.finalize(out)
    assert set(found) == {tally.name for tally in schema.BASIC_TALLIES}
    for name, total in found.items():
        parts = [example.compute_tallies(shard)[name] for shard in range(4)]
        np.testing.assert_array_equal(total, sum(parts), strict=True)


def test_manifest_lists_the_spec_and_each_shard_in_order(out):
    spec_hash, entries = layout.read_manifest(out, 4)
    assert spec_hash == layout.read_spec(out).hash
    assert [entry.shard for entry in entries] == [0, 1, 2, 3]
    assert entries == [layout.read_record(out, shard) for shard in range(4)]
    assert len((out / "MANIFEST").read_bytes().splitlines()) == 5


@pytest.mark.filterwarnings("error")
def test_summary_opens_in_xarray_with_units(out):
    merged = derive.finalize(out)
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
        derive.finalize(out)
    assert not (out / "MANIFEST").exists()


def test_damaged_tallies_are_a_data_error(out):
    path = layout.shard_path(out, 1)
    with h5py.File(path) as file:
        offset = file["tally/token_count"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(errors.DataError, match=r"part-00001\.h5 is damaged"):
        derive.finalize(out)


def test_shards_that_do_not_follow_each_other_are_refused(out):
    example.replace_record(out, 2, token_start=17, rows=7)
    with pytest.raises(errors.DataError, match=r"part-00002\.h5 starts at token 17, not at 16"):
        derive.finalize(out)


def test_index_of_a_run_that_has_grown_too_many_shards_is_removed(out, monkeypatch):
    monkeypatch.setattr(derive, "MOST_INDEXED", 3)
    derive.finalize(out)
    assert not (out / "index.h5").exists()


def test_run_of_an_empty_corpus_has_a_manifest_alone(tmp_path):
    layout.create_run(tmp_path, example.spec(n_shards=0))
    assert derive.finalize(tmp_path) == {}
    spec_hash = layout.read_spec(tmp_path).hash
    assert (tmp_path / "MANIFEST").read_bytes() == records.manifest(spec_hash, [])
    assert not (tmp_path / "summary.h5").exists()


def test_nothing_is_left_beside_the_files_of_a_run(out):
    assert set(os.listdir(out)) == {
        *("RUN.json", "MANIFEST", "summary.h5", "index.h5"),
        *("shards", "tokens", "environment"),
    }
    names = [f"part-{i:05d}.{kind}" for i in range(4) for kind in ("h5", "json")]
    assert sorted(os.listdir(out / "shards")) == names
