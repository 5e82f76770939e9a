import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from store import example

from jaxlens import errors, schema
from jaxlens.store import records, summary
from jaxlens.store.hdf5 import compare, images, reading, structure
from jaxlens.tally import bins, definitions

PLACE = records.ShardRange(
    spec_hash="a" * 64, shard=7, token_start=50, token_stop=74, tokens_sha256="b" * 64
)
ROWS = 24


def build(rows=None, tallies=None, place=PLACE, **more):
    rows = example.compute_rows(7, ROWS, "full") if rows is None else rows
    tallies = example.compute_tallies(7) if tallies is None else tallies
    return bytes(images.shard_image(place, rows, tallies, example.LAYER_NAMES, **more))


def save(path, data):
    path.write_bytes(data)
    return path


def test_same_input_gives_the_same_bytes_at_any_time_and_in_any_order():
    rows, tallies = example.compute_rows(7, ROWS, "full"), example.compute_tallies(7)
    merged = summary.axis_labels(tallies)
    arrays = {"b": np.arange(5), "a": np.array([b"x", b"yy"])}
    first = (
        build(rows, tallies, skipped={"a": 1, "b": 2}),
        bytes(images.summary_image({"x": 1, "y": "z"}, tallies, example.LAYER_NAMES, merged)),
        bytes(images.arrays_image(arrays, {"x": 1, "y": 2})),
    )
    time.sleep(1.1)  # HDF5 counts time in seconds
    rows, tallies = (dict(reversed(found.items())) for found in (rows, tallies))
    second = (
        build(rows, tallies, skipped={"b": 2, "a": 1}),
        bytes(images.summary_image({"y": "z", "x": 1}, tallies, example.LAYER_NAMES, merged)),
        bytes(images.arrays_image(dict(reversed(arrays.items())), {"y": 2, "x": 1})),
    )
    assert first == second


def test_another_process_with_another_hash_seed_gives_the_same_bytes():
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); from store import example;"
        "data = example.shard_image(example.spec(), 1, profile='full');"
        "print(hashlib.sha256(data).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    found = subprocess.check_output(command, env=environment, text=True).strip()
    data = example.shard_image(example.spec(), 1, profile="full")
    assert found == hashlib.sha256(data).hexdigest()


def test_layout_of_the_arrays_in_memory_does_not_matter():
    rows = example.compute_rows(7, ROWS, "full")
    turned = {name: np.asfortranarray(data) for name, data in rows.items()}
    assert build(turned) == build(rows)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_dataset_is_checksummed_scaled_and_explained(tmp_path, compression):
    path = save(tmp_path / "part.h5", build(compression=compression))
    with h5py.File(path) as file:
        for name, item in structure.datasets(file, virtual=False).items():
            assert item.fletcher32, name
            assert item.attrs["long_name"], name
            if not item.is_scale:
                assert all(len(dimension) == 1 for dimension in item.dims), name
            if item.dtype.kind != "S":
                assert item.attrs["units"], name
        assert file["kl_final"].chunks == (ROWS, example.N_LAYERS)
        assert (file["kl_final"].compression == "gzip") == (compression == "gzip")
        assert file["tally/token_sum_ln_rank_input"].compression == "gzip"
        assert file["tally/token_sum_ln_rank_input"].shuffle


def test_chunks_hold_all_layers_and_at_most_4096_rows():
    rows = {"kl_final": np.zeros((5000, example.N_LAYERS), np.float32)}
    place = records.ShardRange(**vars(PLACE) | {"token_stop": 5050})
    data = bytes(images.shard_image(place, rows, {}, example.LAYER_NAMES))
    with h5py.File(io.BytesIO(data)) as file:
        assert file["kl_final"].chunks == (4096, example.N_LAYERS)


@pytest.mark.filterwarnings("error")
def test_xarray_opens_a_shard_with_labels_and_units_and_masks_what_is_missing(tmp_path):
    path = save(tmp_path / "part.h5", build(skipped={"empty": 3}))
    rows = example.compute_rows(7, ROWS, "full")
    with xarray.open_dataset(path) as found:
        assert found.attrs["Conventions"] == "CF-1.10"
        assert json.loads(found.attrs["skipped"]) == {"empty": 3}
        assert list(found.layer_name.values) == list(example.LAYER_NAMES)
        np.testing.assert_array_equal(found.row, np.arange(50, 74))
        assert set(found.data_vars) == set(rows)
        for name, data in rows.items():
            assert found[name].dims == schema.QUANTITIES[name].axes
            assert found[name].attrs["units"] == schema.QUANTITIES[name].unit
            fill = MISSING.get(name)
            expected = data if fill is None else np.where(data == fill, np.nan, data)
            assert (found[name].dtype.kind == "f") == (expected.dtype.kind == "f"), name
            np.testing.assert_array_equal(found[name], expected, name)
        assert found.top_id.attrs["missing"] == np.iinfo(np.uint16).max
        assert "layer_name" in found.kl_final.coords
    with xarray.open_dataset(path, mask_and_scale=False) as found:
        for name, data in rows.items():
            assert found[name].dtype == data.dtype
            np.testing.assert_array_equal(found[name], data)


MISSING = {
    **{f"rank_{name}": 0 for name in schema.REFERENCES},
    **{f"{name}_token": 65_535 for name in ("next", "foreign", "copy")},
    **{"logp_next": np.nan, "surprisal": np.nan, "prev_distance": 0},
    **{"piece": 255, "foreign_fold": 255},
}
"""What a row without a value has in the file, of vocabularies of two bytes."""


def test_the_mark_of_missing_values_is_an_attribute_of_the_stored_type(tmp_path):
    path = save(tmp_path / "part.h5", build())
    with h5py.File(path) as file:
        marked = {n: file[n].attrs["_FillValue"] for n in file if "_FillValue" in file[n].attrs}
        assert {name: fill.dtype for name, fill in marked.items()} == {
            name: file[name].dtype for name in marked
        }
    np.testing.assert_equal(marked, {n: marked[n].dtype.type(f) for n, f in MISSING.items()})


def test_every_quantity_says_whether_a_row_can_lack_it():
    """None is forgotten: those that every row has are named one by one."""
    always = {"token", "document", "offset", "position", "prev_count", "match_length", "copied"}
    always |= {"fold", "top_id", "top_logp", "entropy", "norm", "retention", "embedding_norm"}
    always |= {"logp_input", "logp_final", "kl_final_matched"}
    always |= {f"{kind}_{end}" for kind in ("kl", "kl_to", "js") for end in ("final", "input")}
    always |= {f"ties_{name}" for name in schema.REFERENCES}  # 0 is a number of ties
    found = {n: schema.fill_value(n, np.float64) for n in schema.QUANTITIES}
    assert {name for name, fill in found.items() if fill is None} == always
    assert schema.fill_value("copy_token", np.uint32) == 2**32 - 1
    assert np.isnan(schema.fill_value("surprisal", np.float16))


def test_an_older_format_is_written_without_the_marks():
    new, old = build(), build(version=3)
    assert new.count(b"_FillValue") == len(MISSING) and b"_FillValue" not in old
    with reading.open_image(old) as one, reading.open_image(new) as other:
        assert compare.same_contents(one, other)
        assert (one.attribute("format_version"), other.attribute("format_version")) == (3, 4)


@pytest.mark.filterwarnings("error")
def test_xarray_opens_the_tallies_by_name_of_quantity(tmp_path):
    path = save(tmp_path / "part.h5", build())
    tallies = example.compute_tallies(7)
    with xarray.open_dataset(path, group="tally") as found:
        assert set(found.data_vars) == set(tallies)
        for name, data in tallies.items():
            assert found[name].dims == definitions.BY_NAME[name].axes
            np.testing.assert_array_equal(found[name], data)
        line = schema.SUMMED.index("kl_final")
        np.testing.assert_array_equal(found["sum"].sel(quantity="kl_final"), tallies["sum"][line])
        assert list(found.reference.values) == list(schema.REFERENCES)
        np.testing.assert_array_equal(found.ln_rank_edge, bins.LN_RANK_EDGES)
    with xarray.open_datatree(path) as tree:
        assert list(tree.children) == ["tally"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stop", [50, 74])
def test_shard_without_rows_holds_only_tallies(tmp_path, stop):
    place = records.ShardRange(**vars(PLACE) | {"token_stop": stop})
    path = save(tmp_path / "part.h5", build(rows={}, place=place))
    with xarray.open_dataset(path) as found:
        assert set(found.sizes) == {"layer"}
    with xarray.open_dataset(path, group="tally") as found:
        assert found.token_count.sum() > 0


@pytest.mark.filterwarnings("error")
def test_axes_of_length_zero_can_be_stored(tmp_path):
    place = records.ShardRange(**vars(PLACE) | {"token_stop": 50})
    rows = {k: v[:0] for k, v in example.compute_rows(7, ROWS, "full").items()}
    path = save(tmp_path / "part.h5", build(rows=rows, place=place))
    with xarray.open_dataset(path) as found:
        assert found.sizes["row"] == 0 and found.kl_final.shape == (0, example.N_LAYERS)


def test_own_labels_replace_those_of_the_schema(tmp_path):
    tallies = {"count": np.zeros((1, example.N_LAYERS), np.int64)}
    path = save(tmp_path / "part.h5", build(tallies=tallies, labels={"quantity": ("entropy",)}))
    with xarray.open_dataset(path, group="tally") as found:
        assert list(found["quantity"].values) == ["entropy"]


@pytest.mark.parametrize(
    ("rows", "tallies", "match"),
    [
        ({"foreign": np.zeros((ROWS, 4), np.float32)}, {}, "rows foreign"),
        ({"kl_final": np.zeros((ROWS, 4), np.int32)}, {}, "int32"),
        ({"top_id": np.zeros((ROWS, 4, 1), np.int32)}, {}, "int32"),
        ({"kl_final": np.zeros((ROWS - 1, 4), np.float32)}, {}, "24 tokens"),
        ({"kl_final": np.zeros((ROWS, 5), np.float32)}, {}, "5 along layer, not 4"),
        ({"kl_final": np.zeros(ROWS, np.float32)}, {}, "shape"),
        ({}, {"count": np.zeros((len(schema.SUMMED), 4), np.int32)}, "int32"),
        ({}, {"count": np.zeros((3, 4), np.int64)}, "along quantity"),
    ],
)
def test_wrong_arrays_are_refused(rows, tallies, match):
    with pytest.raises(ValueError, match=match):
        build(rows, tallies)


def test_arrays_come_back_as_they_were_put_in(tmp_path):
    arrays = {
        "document_start": np.array([0, 5, 9]),
        "document_id": np.array([b"a", b"\xff\x00b"]),
        "counts": np.arange(12, dtype=np.uint32).reshape(2, 6),
        "empty": np.zeros(0, np.int64),
    }
    axes = {"document_id": ("document",), "counts": ("fold", "vocab")}
    path = save(tmp_path / "index.h5", images.arrays_image(arrays, {"n": 3, "s": "é"}, axes))
    with pytest.raises(errors.DataError, match=r"index\.h5 is damaged.*sha256"):
        reading.read_arrays(path, "0" * 64)
    found, attributes = reading.read_arrays(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert attributes["n"] == 3 and attributes["s"] == "é"
    assert set(found) == set(arrays)
    for name, data in arrays.items():
        np.testing.assert_array_equal(found[name], data, strict=True)
    with xarray.open_dataset(path) as opened:
        assert opened["counts"].dims == ("fold", "vocab")


def test_arrays_that_hdf5_cannot_hold_safely_are_refused():
    for data in (np.array(["a"]), np.array([None]), np.array(1)):
        with pytest.raises(ValueError, match="cannot be stored"):
            images.arrays_image({"a": data}, {})


def test_arrays_of_one_axis_share_it_and_must_be_of_one_length(tmp_path):
    arrays = {"a": np.arange(3), "b": np.arange(3.0)}
    axes = {"a": ("n",), "b": ("n",)}
    path = save(tmp_path / "a.h5", images.arrays_image(arrays, {}, axes))
    with xarray.open_dataset(path) as found:
        assert dict(found.sizes) == {"n": 3} and set(found.data_vars) == {"a", "b"}
    with pytest.raises(ValueError, match="2 along n, not 3"):
        images.arrays_image(arrays | {"b": np.arange(2)}, {}, axes)


def test_version_of_the_library_is_that_of_hdf5_itself():
    assert reading.library_version() == h5py.version.hdf5_version
