import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from store import example

from jaxlens import errors, schema
from jaxlens.store import commit, finalize, layout, lazy_column, open_shards, reader, run_directory
from jaxlens.store.hdf5 import images

SHARDS, ROWS = 5, 24
TOTAL = SHARDS * ROWS
IDS = tuple(name for name, q in schema.QUANTITIES.items() if q.kind == "id")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    made = tmp_path_factory.mktemp("run")
    example.write_run(made, SHARDS, ROWS, "full")
    return made


@pytest.fixture(scope="module")
def run(out):
    with reader.open_run(out) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected():
    parts = [example.compute_rows(shard, ROWS, "full") for shard in range(SHARDS)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name in set(IDS) & set(joined):
        raw = joined[name].astype(np.int32)
        joined[name] = np.where(raw == np.iinfo(np.uint16).max, -1, raw).astype(np.int32)
    return joined


def same(found, wanted):
    np.testing.assert_array_equal(found, wanted, strict=True)


def test_run_says_what_it_holds(run, out):
    assert len(run) == run.n_rows == run.n_tokens == TOTAL
    assert run.names == schema.FULL
    assert run.layer_names == example.LAYER_NAMES
    assert run.spec["plan"]["n_shards"] == SHARDS
    assert run.spec_hash == layout.read_spec(out).hash
    assert "kl_final" in run and "js_final" not in run and 3 not in run
    assert str(TOTAL) in repr(run) and "kl_final" in repr(run["kl_final"])


def test_a_run_says_what_it_is_in_a_line_and_shows_itself_in_notebooks(run, out, tmp_path):
    assert len(repr(run)) < 120 + len(str(out)) and "\n" not in repr(run)
    page = run._repr_html_()
    assert "<script" not in page and str(TOTAL) in page and "kl_final" in page
    for layer, line in run.summary().items():
        assert f">{layer}</th>" in page
        assert f">{line['median_rank_input']:,.1f}</td>" in page
    hostile = tmp_path / "<b>x"
    example.write_run(hostile, 1, ROWS, "core")
    with reader.open_run(hostile) as opened:
        assert "<b>x" not in opened._repr_html_()


def test_a_data_frame_has_a_record_for_each_row_and_layer(run, expected):
    frame = run.to_pandas(start=5, stop=-80)
    assert len(frame) == (TOTAL - 85) * len(run.layer_names)
    assert frame["row"].tolist() == np.repeat(np.arange(5, TOTAL - 80), 4).tolist()
    assert frame["layer_name"].tolist() == list(run.layer_names) * (TOTAL - 85)
    for name in run.names:
        wanted = expected[name][5:-80]
        layered = "layer" in schema.QUANTITIES[name].axes
        wanted = wanted if layered else np.repeat(wanted, 4, axis=0)
        wanted = wanted.reshape(len(frame), -1)
        for place in range(wanted.shape[1]):
            key = f"{name}.{place + 1}" if wanted.shape[1] > 1 else name
            found = frame[key].to_numpy(np.float64, na_value=np.nan)
            kind = schema.QUANTITIES[name].kind
            one = wanted[:, place].astype(np.float64)
            missing = {"rank": one == 0, "id": one < 0}.get(kind, np.isnan(one))
            np.testing.assert_array_equal(np.isnan(found), missing)
            np.testing.assert_array_equal(found[~missing], one[~missing])


def test_a_data_frame_is_cut_at_a_limit_and_says_how_to_read_on(run):
    with pytest.warns(UserWarning, match="cut after 20 records.*start=5") as told:
        frame = run.to_pandas(["kl_final"], limit=20)
    assert len(frame) == 20 and frame.attrs["next_row"] == 5
    assert told[0].filename == __file__
    rest = run.to_pandas(["kl_final"], start=frame.attrs["next_row"])
    whole = run.to_pandas(["kl_final"], limit=None)
    same(whole["kl_final"].to_numpy(), np.concatenate([frame["kl_final"], rest["kl_final"]]))
    alone = run.to_pandas("token", limit=TOTAL)
    assert len(alone) == TOTAL and "layer" not in alone and "next_row" not in alone.attrs


def test_layers_are_named_wherever_a_layer_is_chosen(run):
    same(run["kl_final"][:7, "h.1"], run["kl_final"][:7, 2])
    same(run["rank_input"][[3, 1]][:, 0], run["rank_input"][[3, 1], "input"])
    same(run["kl_final"][:7, ["h.2", "input"]], run["kl_final"][:7, [3, 0]])
    frame = run.to_pandas(["kl_final"], layers=["h.2", 0, -2])
    assert frame["layer"].tolist()[:3] == [3, 0, 2]
    same(frame["kl_final"].to_numpy(), run["kl_final"][:][:, [3, 0, 2]].ravel())
    for bad in (lambda: run["kl_final"][:, "h.3"], lambda: run["token"][:, "h.0"]):
        with pytest.raises(errors.ConfigError, match="has no layer"):
            bad()
    for layer in ("h.9", 4, -5):
        with pytest.raises(errors.ConfigError, match="no layer"):
            run.to_pandas(["kl_final"], layers=[layer])
    with pytest.raises(errors.ConfigError, match="no quantity"):
        run.to_pandas(["loss"])


def test_one_name_is_as_good_as_a_list_of_it(run):
    (batch,) = run.batches("kl_final", stop=3)
    assert set(batch) == {"row", "kl_final"}
    assert list(run.to_xarray("kl_final")) == ["kl_final"]


def test_whole_columns_are_what_was_written(run, expected):
    for name in run.names:
        same(run[name][:], expected[name])
        same(np.asarray(run[name]), expected[name])
        assert run[name].shape == expected[name].shape
        assert run[name].dtype == expected[name].dtype
        assert len(run[name]) == TOTAL and run[name].ndim == expected[name].ndim


def test_ids_are_signed_with_minus_one_where_missing(run):
    for name in ("top_id", "copy_token", "next_token"):
        assert run[name].dtype == np.int32
        assert run[name][:].min() == -1


numbers = st.none() | st.integers(-TOTAL - 5, TOTAL + 5)
slices = st.builds(slice, numbers, numbers, numbers.filter(lambda step: step != 0))
rows = slices | st.integers(-TOTAL, TOTAL - 1) | st.just(slice(None))
lists = st.lists(st.integers(-TOTAL, TOTAL - 1), max_size=9).map(lambda n: np.array(n, int))
layers = st.integers(-4, 3) | st.sampled_from([slice(None), slice(1, 3), slice(None, None, -1)])


@settings(max_examples=300, deadline=None)
@given(key=rows | lists | st.tuples(rows | lists, layers), name=st.sampled_from(schema.LAYERED))
def test_indexing_is_that_of_numpy(run, expected, key, name):
    if name in run:
        same(run[name][key], expected[name][key])


@pytest.mark.parametrize(
    "key",
    [
        np.s_[...],
        np.s_[..., 1],
        np.s_[..., 1, 0],
        np.s_[3, 1, 0],
        np.s_[..., 3, 1, 0],
        np.s_[()],
        np.s_[20:30, [0, 2]],
        np.s_[20:30, :, [1, 0]],
        np.s_[20:30, 2, [1, 0]],
        np.s_[7, :, [1, 0]],
        np.s_[20:30, None, 2],
        np.s_[[3, 50, 4], 2],
        np.s_[[3, 50, 4], :, 1],
        np.s_[np.arange(TOTAL) % 7 == 0, 1:3],
        np.s_[[]],
        np.uint8(5),
    ],
)
def test_unusual_indices_are_those_of_numpy_too(run, expected, key):
    same(run["top_id"][key], expected["top_id"][key])


@pytest.mark.parametrize(
    "key",
    [
        *(TOTAL, -TOTAL - 1, None, True, [TOTAL], [0.5], [[1]], [True], 1.5, "x"),
        *(np.s_[:, 4], np.s_[0:3, -5], np.s_[:, 0, 0, 0], np.s_[5, 9]),
        *(np.s_[[0, 1], [0, 1]], np.s_[0:3, [0, 1], None, [0]]),
    ],
)
def test_indices_that_cannot_be_followed_are_refused(run, key):
    with pytest.raises((IndexError, TypeError)):
        run["top_id"][key]


def test_quantity_that_the_profile_lacks_is_refused_naming_one_that_has_it(tmp_path, run):
    example.write_run(tmp_path, 1, 8, "core")
    with reader.open_run(tmp_path) as core:
        with pytest.raises(errors.ConfigError, match="token") as caught:
            core["token"]
        assert "--rows full" in caught.value.hint
    with pytest.raises(errors.ConfigError, match="rank_inptu") as caught:
        run["rank_inptu"]
    assert "rank_input" in caught.value.hint
    with pytest.raises(errors.ConfigError) as caught:
        run["js_final"]
    assert "no --rows profile" in caught.value.hint


def test_run_of_tallies_alone_has_no_rows(tmp_path):
    example.write_run(tmp_path, 3, 8, "none")
    assert not (tmp_path / "index.h5").exists()
    with reader.open_run(tmp_path) as run:
        assert (len(run), run.n_tokens, run.names) == (0, 24, ())
        assert run.tally["token_count"].sum() > 0
        assert run.layer_names == example.LAYER_NAMES
        assert run.to_xarray().sizes == {"layer": 4}
        with pytest.raises(errors.ConfigError, match="no rows of 'kl_final'"):
            run["kl_final"]


def test_tallies_are_the_same_with_and_without_the_summary(tmp_path):
    example.write_run(tmp_path, 4, 8)
    expected = [example.compute_tallies(shard) for shard in range(4)]
    for _ in range(2):
        with reader.open_run(tmp_path) as run:
            assert set(run.tally) == set(expected[0])
            for name, found in run.tally.items():
                same(found, sum(part[name] for part in expected))
        (tmp_path / "summary.h5").unlink(missing_ok=True)


def test_summary_is_by_layer_and_name(run):
    found = run.summary()
    assert tuple(found) == example.LAYER_NAMES
    assert {"median_rank_input", "median_rank_final", "mean_kl_final", "mean_entropy"} <= set(
        found["h.2"]
    )
    line = schema.SUMMED.index("kl_input")
    mean = run.tally["sum"][line, 3] / run.tally["count"][line, 3] / 2**16
    assert found["h.2"]["mean_kl_input"] == pytest.approx(mean, rel=1e-15)


def test_xarray_has_the_same_values_and_labels(run, expected):
    found = run.to_xarray(["top_id", "kl_final", "document"])
    assert set(found.data_vars) == {"top_id", "kl_final", "document"}
    same(found.top_id.values, expected["top_id"])
    assert found.kl_final.sel(layer=2, row=50).item() == expected["kl_final"][50, 2]
    assert list(found.layer_name.values) == list(example.LAYER_NAMES)
    assert set(run.to_xarray().data_vars) == set(run.names)


def test_xarray_that_is_not_installed_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(errors.MissingError, match="xarray") as caught:
        run.to_xarray()
    assert "[study]" in caught.value.hint


@pytest.mark.filterwarnings("error")
def test_virtual_index_equals_the_reader_from_any_directory(out, run, expected, monkeypatch):
    monkeypatch.chdir("/")
    with h5py.File(out / "index.h5") as index:
        for name in run.names:
            raw = index[name][:]
            found = raw.astype(np.int32) if name in IDS else raw
            if name in IDS:
                found[raw == np.iinfo(raw.dtype).max] = -1
            same(found, expected[name])
    with xarray.open_dataset(out / "index.h5") as index:
        np.testing.assert_array_equal(index.row, np.arange(TOTAL))
        np.testing.assert_array_equal(index.kl_final, expected["kl_final"])
        assert list(index.layer_name.values) == list(example.LAYER_NAMES)


def test_unfinished_run_is_refused_saying_how_much_is_missing(tmp_path):
    example.write_run(tmp_path, 6, 8)
    for shard in (2, 4):
        layout.shard_path(tmp_path, shard).unlink()
    with pytest.raises(errors.MissingError, match=r"lacks 2 of 6 shards.*part-00002") as caught:
        reader.open_run(tmp_path)
    assert "the same jaxlens run again" in caught.value.hint
    with pytest.raises(errors.MissingError):
        reader.open_run(tmp_path / "none")


def test_truncated_shard_is_refused_when_the_run_is_opened(tmp_path):
    example.write_run(tmp_path, 3, 8)
    os.truncate(layout.shard_path(tmp_path, 1), 100)
    with pytest.raises(errors.DataError, match=r"part-00001\.h5 has 100 bytes"):
        reader.open_run(tmp_path)


def test_altered_shard_is_refused_when_it_is_first_read_and_others_are_not(tmp_path):
    example.write_run(tmp_path, 3, 8)
    path = layout.shard_path(tmp_path, 1)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with reader.open_run(tmp_path) as run:
        assert run["kl_final"][:8].shape == (8, 4) and run["kl_final"][16:].shape == (8, 4)
        for _ in range(2):
            with pytest.raises(errors.DataError, match=r"part-00001\.h5.*sha256"):
                run["kl_final"][:]


def test_shard_of_another_form_is_refused(tmp_path):
    example.write_run(tmp_path / "core", 2, 8, "core")
    example.write_run(tmp_path / "full", 2, 8, "full")
    spec_hash = layout.read_spec(tmp_path / "core").hash
    where = layout.shard_path(tmp_path / "core", 1)
    data = example.compute_rows(1, 8, "full")
    place = example.place(example.spec(2, 8), 1, 2, 8)
    assert place.spec_hash == spec_hash
    made = images.shard_image(place, data, example.compute_tallies(1), example.LAYER_NAMES)
    commit.discard(tmp_path / "core", 1)
    commit.publish_shard(tmp_path / "core", place, made, 8, example.FAST)
    (tmp_path / "core" / "MANIFEST").unlink()
    with reader.open_run(tmp_path / "core") as run:
        for _ in range(2):
            with pytest.raises(errors.DataError, match=rf"{where.name}.*not those of the first"):
                run["kl_final"][8:]


def test_manifest_of_another_run_is_refused(tmp_path):
    example.write_run(tmp_path / "a", 2, 8)
    example.write_run(tmp_path / "b", 2, 8, more={"seed": 1})
    (tmp_path / "a" / "MANIFEST").write_bytes((tmp_path / "b" / "MANIFEST").read_bytes())
    with pytest.raises(errors.DataError, match="MANIFEST"):
        reader.open_run(tmp_path / "a")


def test_summary_of_another_run_is_refused(tmp_path):
    example.write_run(tmp_path / "a", 2, 8)
    example.write_run(tmp_path / "b", 2, 8, more={"seed": 1})
    (tmp_path / "a" / "summary.h5").write_bytes((tmp_path / "b" / "summary.h5").read_bytes())
    with reader.open_run(tmp_path / "a") as run, pytest.raises(errors.DataError, match="another"):
        _ = run.tally


def test_closed_run_opens_its_files_again(out):
    run = reader.open_run(out)
    first = run["kl_final"][:]
    run.close()
    same(run["kl_final"][:], first)
    assert len(run._shards) == SHARDS
    run.close()
    assert not len(run._shards)


@pytest.mark.parametrize(
    ("count", "limit"), [(100, 64), pytest.param(1200, 1024, marks=pytest.mark.long)]
)
def test_more_shards_are_read_than_descriptors_are_allowed(tmp_path, count, limit):
    spec_bytes = example.spec(count, 2)
    run_directory.create_run(tmp_path, spec_bytes, example.FAST)
    parts = []
    for shard in range(count):
        data = {"rank_input": example.compute_rows(shard, 2)["rank_input"]}
        place = example.place(spec_bytes, shard, count, 2)
        made = images.shard_image(place, data, {}, example.LAYER_NAMES)
        commit.publish_shard(tmp_path, place, made, 2, example.FAST)
        parts.append(data["rank_input"])
    assert finalize.finalize(tmp_path, example.FAST) == {}
    assert (tmp_path / "index.h5").exists() == (count <= finalize.MAX_INDEXED)
    script = (
        "import os, resource, sys; limit = int(sys.argv[2]);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit));"
        "from jaxlens.store import open_shards, reader, shards;"
        "run = reader.open_run(sys.argv[1]); found = run['rank_input'][::-1];"
        "assert len(run._shards) == open_shards.MAX_OPEN < limit, len(run._shards);"
        "assert len(os.listdir('/dev/fd')) < open_shards.MAX_OPEN + 16, os.listdir('/dev/fd');"
        "assert (run['rank_input'][:] == found[::-1]).all();"
        "assert shards.missing_shards(sys.argv[1], len(found) // 2, run.spec_hash) == [];"
        "sys.stdout.buffer.write(found[::-1].tobytes())"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(limit)]
    found = subprocess.check_output(command, cwd=Path(__file__).parents[2])
    assert found == np.concatenate(parts).tobytes()


def test_run_of_an_empty_corpus_has_no_columns(tmp_path):
    run_directory.create_run(tmp_path, example.spec(n_shards=0), example.FAST)
    with reader.open_run(tmp_path) as run:
        assert (len(run), run.names, run.layer_names, run.tally) == (0, (), (), {})


def test_oldest_of_too_many_open_shards_is_closed(out, expected, monkeypatch):
    monkeypatch.setattr(open_shards, "MAX_OPEN", 2)
    with reader.open_run(out) as run:
        same(run["kl_final"][:], expected["kl_final"])
        assert list(run._shards._open) == [SHARDS - 2, SHARDS - 1]
        first = run._shards._open[SHARDS - 2]
        run["kl_final"][0]
        assert not first.file and list(run._shards._open) == [SHARDS - 1, 0]


def test_column_is_no_view(run):
    with pytest.raises(ValueError, match="makes a copy"):
        np.asarray(run["kl_final"], copy=False)


@pytest.mark.parametrize("most", [1, 64, 1000])
def test_rows_are_the_same_in_pieces_of_any_size(run, expected, monkeypatch, most):
    monkeypatch.setattr(lazy_column, "_BLOCK_BYTES", most)
    monkeypatch.setattr(lazy_column, "_BLOCK_ROWS", 2)
    chosen = np.random.default_rng(3).integers(-TOTAL, TOTAL, 200)
    for name in ("kl_final", "top_id", "token"):
        same(run[name][:], expected[name])
        same(run[name][5:-7:3], expected[name][5:-7:3])
        same(run[name][chosen], expected[name][chosen])


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.sampled_from(schema.FULL), max_size=4, unique=True),
    most=st.integers(1, 2 * ROWS),
    start=st.none() | st.integers(-TOTAL - 3, TOTAL + 3),
    stop=st.none() | st.integers(-TOTAL - 3, TOTAL + 3),
)
def test_batches_are_all_rows_once_in_order_and_those_of_columns(
    run, expected, names, most, start, stop
):
    wanted = range(TOTAL)[slice(start, stop)]
    at = wanted.start
    for batch in run.batches(names, most, start or 0, stop):
        assert list(batch) == ["row", *names]
        n = len(batch["row"])
        assert 1 <= n <= most
        same(batch["row"], np.arange(at, at + n))
        assert at // ROWS == (at + n - 1) // ROWS
        for name in names:
            same(batch[name], expected[name][at : at + n])
        at += n
    assert at == max(wanted.stop, wanted.start)


def test_batches_open_each_shard_once_though_fewer_are_held(out, monkeypatch):
    opened = []
    real = reader.shards.open_shard

    def open_shard(run_dir, entry, hashed=True):
        opened.append((entry.shard, hashed))
        return real(run_dir, entry, hashed)

    monkeypatch.setattr(open_shards, "MAX_OPEN", 1)
    monkeypatch.setattr(reader.shards, "open_shard", open_shard)
    with reader.open_run(out) as run:
        assert len(list(run.batches(rows=7))) == SHARDS * 4
    assert opened == [(shard, True) for shard in range(SHARDS)]


def test_batches_that_cannot_be_are_refused_when_they_are_asked_for(run):
    with pytest.raises(errors.ConfigError, match="js_final"):
        run.batches(["js_final"])
    with pytest.raises(errors.ConfigError, match="rows is 0"):
        run.batches(rows=0)


def test_batches_stop_at_a_damaged_shard(tmp_path):
    example.write_run(tmp_path, 3, 8)
    example.damage(tmp_path, 1, 500)
    with reader.open_run(tmp_path) as run:
        found = run.batches(["kl_final"])
        assert next(found)["row"][-1] == 7
        with pytest.raises(errors.DataError, match="part-00001"):
            next(found)
