"""Missing values are missing for whoever opens a file: none is counted, and none is made up."""

import h5py
import numpy as np
import pytest
import xarray
from sweeps import run_cli

import jaxlens
from jaxlens import schema


@pytest.fixture(scope="module")
def run(swept):
    with jaxlens.open_run(swept) as opened:
        yield opened


@pytest.fixture(scope="module")
def absent(run):
    """Which rows lack each quantity, from the tokens alone."""
    start, position = run.corpus.documents.start, run["position"][:]
    tokens = run.corpus.tokens(0, run.n_tokens)
    last = np.isin(np.arange(run.n_tokens), start[1:] - 1)
    new = np.ones(run.n_tokens, bool)
    seen = set()
    for row, token in enumerate(tokens.tolist()):
        if position[row] == 0:
            seen.clear()
        new[row] = token not in seen
        seen.add(token)
    none = np.zeros(run.n_tokens, bool)
    found = dict.fromkeys(run.names, none)
    found |= dict.fromkeys(("rank_next", "logp_next", "next_token"), last)
    found |= dict.fromkeys(("rank_copy", "copy_token", "prev_distance"), new)
    return found | {"surprisal": position == 0}


def expected(run, absent, name):
    """Values with NaN where there is none."""
    values = run[name][:].astype(np.float64)
    values[absent[name]] = np.nan
    return values


def test_a_shard_the_index_and_an_export_say_what_is_missing(run, absent, swept, tmp_path):
    one = tmp_path / "rows.h5"
    assert run_cli("export", swept, "--to", "hdf5", "--out", one) == 0
    assert all(absent[name].any() for name in ("rank_next", "rank_copy", "surprisal"))
    for path in (swept / "index.h5", one, *sorted(swept.glob("shards/*.h5"))):
        with xarray.open_dataset(path) as found:
            rows = found["row"].values
            for name in run.names:
                np.testing.assert_array_equal(found[name], expected(run, absent, name)[rows], name)
    in_memory = run.to_xarray()
    for name in run.names:
        np.testing.assert_array_equal(in_memory[name], expected(run, absent, name), name)


def test_the_mean_over_what_is_there_is_the_mean(run, swept):
    """The fault itself: zeros that stand for no rank were averaged with the ranks."""
    ranks = run["rank_copy"][:].astype(np.float64)
    right = ranks[ranks > 0].mean()
    assert abs(ranks.mean() / right - 1) > 0.1
    with xarray.open_dataset(swept / "index.h5") as found:
        assert float(found["rank_copy"].mean(dtype=np.float64)) == pytest.approx(right)
    assert float(run.to_xarray()["rank_copy"].mean(dtype=np.float64)) == pytest.approx(right)


def test_integers_stay_within_reach(run, swept):
    with (
        h5py.File(swept / "index.h5") as file,
        xarray.open_dataset(swept / "index.h5", mask_and_scale=False) as found,
    ):
        raw = run.to_xarray(masked=False)
        for name in ("rank_copy", "copy_token", "prev_distance", "piece"):
            stored = file[name][:]
            assert stored.dtype == run[name].stored and stored.dtype.kind == "u"
            np.testing.assert_array_equal(found[name], stored, strict=True)
            np.testing.assert_array_equal(raw[name], run[name][:], strict=True)
            gone = stored == file[name].attrs["_FillValue"]
            assert np.array_equal(gone, run[name][:] == raw[name].attrs["missing"])
    masked = run.to_xarray(["token", "top_id", "document", "rank_copy"])
    kinds = {name: masked[name].dtype.kind for name in masked.data_vars}
    assert kinds == {"token": "i", "top_id": "i", "document": "u", "rank_copy": "f"}


def test_a_data_set_that_is_written_again_has_the_stored_types(run, tmp_path):
    run.to_xarray(["rank_copy", "surprisal"]).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "a.nc") as file:
        assert file["rank_copy"].dtype == run["rank_copy"].stored
        np.testing.assert_array_equal(file["rank_copy"], run["rank_copy"][:])


def test_parquet_has_nulls_where_values_are_missing(run, absent, swept, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    assert run_cli("export", swept, "--to", "parquet", "--out", path) == 0
    table = pq.read_table(path)
    for heading in table.column_names:
        name = heading.partition(".")[0]
        if name in schema.QUANTITIES:
            gone = table[heading].is_null().to_numpy()
            np.testing.assert_array_equal(gone, absent[name], heading)
