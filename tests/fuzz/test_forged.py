"""Runs whose stored values were changed by someone who rewrote every hash: read, or refused by 65.

A hash says that a file is the one that its record names. Who rewrites both can store any number.
Whatever the numbers are, `study` and `report` answer or refuse: never with an error of our own.
"""

import hashlib
import json
import random
import re
import shutil
import warnings

import h5py
import numpy as np
import pytest
from sweeps import configure, refused, run_cli

from jaxlens import config
from jaxlens.store import layout, record_table, verify
from jaxlens.sweep import run as sweep
from jaxlens.tally import sampling
from jaxlens.view.figures import svg

COUNTS = (8, pytest.param(600, marks=pytest.mark.long))
FLOATS = (np.nan, np.inf, -np.inf, -5.0, 0.0, 1e30, -1e30)


@pytest.fixture(scope="module")
def sound(tiny, texts, studied, swept, tmp_path_factory):
    """Runs with the study's tallies, with full rows, and of planted copies with core rows."""
    folder = tmp_path_factory.mktemp("sound")
    how = {"store.rows": "core", "corpus.limit": 640, "plan.length": 32}
    sweep.run(configure(tiny, "twins:repeats", folder / "twins", **how))
    return [studied / "trained", swept, folder / "twins"]


def rehash(run):
    """Makes the records of a run those of its shards, and removes what followed from the old."""
    spec = layout.read_spec(run)
    for shard in range(spec.n_shards):
        image = layout.shard_path(run, shard).read_bytes()
        path = layout.sidecar_path(run, shard)
        entry = json.loads(path.read_bytes())
        entry |= {"size": len(image), "sha256": hashlib.sha256(image).hexdigest()}
        path.write_bytes(config.canonical(entry))
    entries = [layout.read_record(run, shard) for shard in range(spec.n_shards)]
    (run / layout.MANIFEST).write_bytes(record_table.RecordTable.of(spec.hash, entries).manifest())
    for name in (layout.SUMMARY, layout.INDEX):
        (run / name).unlink(missing_ok=True)


def forged(source, target, shard, change):
    """A copy of a run in which a function changed the open file of a shard."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    with h5py.File(layout.shard_path(target, shard), "r+") as file:
        change(file)
    rehash(target)
    return target


def mangle(file, chance):
    """Overwrites one to three datasets: a value, a line, or all of them."""
    names = []
    file.visititems(lambda name, item: names.append(name) if _has_numbers(name, item) else None)
    for name in chance.sample(names, chance.choice((1, 1, 3))):
        values = file[name][()]
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # 1e30 is beyond float16
                value = np.array(chance.choice(FLOATS)).astype(values.dtype)
        else:
            most = np.iinfo(values.dtype)
            value = chance.choice((0, 1, 2, 4_096, 5_000, -1, most.max - 1, most.max, most.min))
            value = min(max(value, most.min), most.max)
        way = chance.randrange(3)
        if way == 0:
            values.reshape(-1)[chance.randrange(values.size)] = value
        elif way == 1:
            values[chance.randrange(len(values))] = value
        else:
            values[...] = value
        file[name][...] = values


def _has_numbers(name, item):
    fixed = name in ("row", "layer")
    return isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and item.size and not fixed


@pytest.mark.parametrize("count", COUNTS)
def test_forged_values_are_answered_or_refused_and_never_our_error(
    sound, count, tmp_path, capsys, monkeypatch
):
    # What is drawn has a test of its own; here the numbers matter, and a picture takes a second.
    monkeypatch.setattr(svg, "svg", lambda *_: "<svg/>")
    codes = []
    for number in range(count):
        chance = random.Random(number)
        source = chance.choice(sound)
        shard = chance.randrange(layout.read_spec(source).n_shards)
        run = forged(source, tmp_path / "run", shard, lambda file, c=chance: mangle(file, c))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # nonsense that is in range divides by 0
            codes.append(run_cli(chance.choice(("study", "study", "report")), run))
        printed = capsys.readouterr().err
        assert codes[-1] in (0, 65), (number, source.name, printed)
        if codes[-1]:
            assert "part-" in printed and "internal" not in printed, printed
    assert {0, 65} <= set(codes)


IMPOSSIBLE = [
    ("rows", "rank_input", 5_000),
    ("rows", "rank_next", 65_535),
    ("rows", "document", 4_000_000),
    ("rows", "offset", 2**31),
    ("rows", "position", 40_000),
    ("rows", "token", 5_000),
    ("rows", "token", 65_535),
    ("rows", "top_id", 4_097),
    ("rows", "copied", 2),
    ("rows", "piece", 9),
    ("rows", "foreign_fold", 3),
    ("rows", "embedding_norm", -1.0),
    ("tallies", "tally/token_count", -1),
    ("tallies", "tally/rank_histogram", -1),
    ("tallies", "tally/type_count", 2**40),
    ("tallies", "tally/group_sum", -(2**63)),
    ("tallies", "tally/type_square", -1),
]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        pytest.param(*case, marks=[pytest.mark.long] * bool(place % 3))
        for place, case in enumerate(IMPOSSIBLE)
    ],
)
def test_an_impossible_value_is_refused_by_file_and_name(
    sound, kind, name, value, tmp_path, capsys
):
    def change(file):
        file[name][tuple(0 for _ in file[name].shape)] = value

    run = forged(sound[kind == "rows"], tmp_path / "run", 1, change)
    told = refused(capsys, 65, "study", run)
    assert "part-00001.h5" in told and name.removeprefix("tally/") in told
    assert not verify.verify(run).ok


@pytest.mark.parametrize(
    ("field", "value"), [("token", 4_096), ("document", -1), ("rank_next.1", 4_097), ("key", -2)]
)
def test_an_impossible_field_of_a_sampled_row_is_refused(sound, field, value, tmp_path, capsys):
    place = sampling.fields(3).index(field)

    def change(file):
        file["tally/copies"][0, place] = value

    run = forged(sound[0], tmp_path / "run", 0, change)
    told = refused(capsys, 65, "study", run)
    assert "part-00000.h5" in told and f"tally copies, {field}" in told


def test_sums_of_shards_beyond_64_bits_are_refused():
    from jaxlens import errors
    from jaxlens.store import summary

    part = {"token_count": np.full(3, 2**62)}
    with pytest.raises(errors.DataError, match=r"token_count .* exceed 64 bits"):
        summary.add(summary.add(None, "one", part), "two", part)


@pytest.mark.parametrize("name", ["\u202egnp.exe", "=1+1", "h.0\x1b[31m", "", "a" * 41])
def test_a_layer_that_is_called_something_else_is_refused(sound, name, tmp_path, capsys):
    def change(file):
        names = file["layer_name"][()]
        made = names.astype("S64")
        made[0] = name.encode()
        how = file["layer_name"].attrs.get("CLASS")
        del file["layer_name"]
        file["layer_name"] = made
        if how is not None:
            file["layer_name"].make_scale("layer_name")

    run = forged(sound[1], tmp_path / "run", 0, change)
    assert run_cli("report", run) == 65
    printed = capsys.readouterr().err
    assert "a layer is called" in printed
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", printed)
