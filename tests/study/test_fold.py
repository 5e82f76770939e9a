"""The study's tallies: the same of a device, of stored rows and of a loop over the definitions."""

import itertools
import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from study import brute
from sweeps import EVERYTHING, PACKAGED, STUDY, configure

import jaxlens
from jaxlens import errors
from jaxlens.store import summary
from jaxlens.study import fold
from jaxlens.sweep import devices
from jaxlens.sweep import run as sweep
from jaxlens.tally import axes, definitions, facts, sampling, type_means, update


@pytest.fixture(scope="module")
def studied(tiny, texts, tmp_path_factory):
    """A finished run with both: the study's tallies, and rows of all that they are made from."""
    out = tmp_path_factory.mktemp("runs") / "studied"
    assert sweep.run(configure(tiny, texts, out, **EVERYTHING)).finished
    return out


def same(one, two):
    unequal = [n for n in one if one[n].tobytes() != two[n].tobytes()]
    assert not unequal and set(one) == set(two), unequal


def of_device(run):
    return {tally.name: run.tally[tally.name] for tally in definitions.STUDY}


def test_tallies_of_the_device_are_those_of_the_stored_rows(studied):
    with jaxlens.open_run(studied) as run:
        same(of_device(run), fold.of_rows(run))
        assert all(value.dtype == np.int64 for value in run.tally.values())


def test_every_tally_is_what_its_definition_says(studied):
    with jaxlens.open_run(studied) as run:
        batch = next(run.batches(rows=700))
        length = run.spec["plan"]["length"]
        values = fold.prepare(batch, run.corpus.documents, length)
        counts, vocab = run.corpus.token_counts, run.corpus.token_counts.shape[1]
    large = np.where(np.arange(len(values["token"])) % 3, 1, 1e5).astype(np.float32)[:, None]
    for name in (*axes.OF_STREAM, "retention_foreign"):  # norms of 10**5 are found in real models
        values[name] = values[name] * large
        assert np.nanmax(values[name]) > 2**15
    sizes = values["rank_input"].shape[1], vocab
    study = (t for t in definitions.BY_NAME.values() if t.kind == "study")
    found = {t.name: definitions.empty(t.name, definitions.shape(t, *sizes)) for t in study}
    random = np.random.default_rng(0)  # any integers do for means
    means = type_means.TypeMeans(
        random.integers(-(2**17), 2**17, (vocab, len(axes.WITHIN)), np.int32),
        random.integers(0, 2**19, (vocab, sizes[0]), np.int32),
    )
    lookup = facts.tables(vocab, counts, means)
    fold.add(found, values, np.ones(len(values["token"]), bool), lookup)
    expected = brute.tallies(values, counts, means)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert value.any(), name
    for name in ("copies", "controls", "reservoir"):
        lines = brute.sampled(values, counts, name, len(found[name]))
        np.testing.assert_array_equal(found[name][: len(lines)], lines)
        assert (found[name][len(lines) :, 0] == sampling.NO_KEY).all()
        assert len(lines) > 30


@pytest.mark.long  # The products within types are as independent, which is short.
@pytest.mark.parametrize("lanes", ["two lanes", "two devices"])
def test_tallies_depend_on_neither_shards_nor_lanes_nor_rows(
    tiny, texts, studied, tmp_path, monkeypatch, lanes
):
    """Two lanes of one device take turns as two devices do, and nothing is compiled for another."""
    if lanes == "two lanes":
        monkeypatch.setattr(devices, "choose", lambda chosen: jax.devices()[:1] * 2)
    how = EVERYTHING | STUDY | {"store.shard_tokens": 384, "devices": 2}
    sweep.run(configure(tiny, texts, tmp_path / "other", **how))
    (note,) = (tmp_path / "other" / "environment").glob("*.json")
    assert json.loads(note.read_bytes())["measured"]["devices"] == 2
    with jaxlens.open_run(studied) as one, jaxlens.open_run(tmp_path / "other") as other:
        assert not other.n_rows
        same(of_device(one), of_device(other))


@pytest.mark.long
def test_two_workers_leave_the_tallies_of_one(tiny, texts, studied, tmp_path):
    for part in ("0/2", "1/2"):
        sweep.run(configure(tiny, texts, tmp_path / "two", **EVERYTHING, shard=part))
    with jaxlens.open_run(tmp_path / "two") as two, jaxlens.open_run(studied) as one:
        same(of_device(two), of_device(one))


def test_a_context_begins_without_surprisal_and_is_not_counted(studied):
    with jaxlens.open_run(studied) as run:
        position, surprisal = run["position"][:], run["surprisal"][:]
        assert (np.isnan(surprisal) == (position == 0)).all() and (position == 0).any()
        assert run.tally["type_count"].sum() == (position > 0).sum()
        before = np.flatnonzero(position[1:] == position[:-1] + 1)
        said = -run["logp_next"][:, -1]
        # A window that repeats context computes it again, with less before it.
        np.testing.assert_array_equal(surprisal[before + 1], said[before])


def test_a_run_without_rows_or_tallies_says_what_records_them(swept, tiny, texts, tmp_path):
    out = tmp_path / "core"
    sweep.run(configure(tiny, texts, out, **{"store.rows": "core", "corpus.limit": 500}))
    with jaxlens.open_run(out) as run, pytest.raises(errors.ConfigError) as refusal:
        fold.tallies(run)
    assert "--rows full" in refusal.value.hint and "--tallies study" in refusal.value.hint
    with jaxlens.open_run(swept) as run:
        assert fold.tallies(run)["type_count"].sum() > 0


def parts(seed, count):
    """Tallies as shards have them: small ones, every merge among them."""
    random = np.random.default_rng(seed)
    keys = random.permutation(10_000)
    made = []
    for _ in range(count):
        size = int(random.integers(0, 40))
        lines = np.zeros((60, 5), np.int64)
        lines[:, 0] = sampling.NO_KEY
        # Equal texts have equal keys, and are told apart by the number of their document.
        lines[:size, 0] = keys[:size] % 50
        lines[:size, 1], keys = keys[:size], keys[size:]
        lines[:size, 2:] = lines[:size, 1:2] * [3, 5, 7]
        lines = sampling.lowest(lines, 60)
        made.append({"copies": lines, "type_count": random.integers(0, 2**40, 97)})
    return made


def merged(shards):
    total = None
    for number, shard in enumerate(shards):
        total = summary.add(total, str(number), shard)
    return total


@hypothesis.given(st.integers(0, 2**16), st.permutations(range(6)), st.integers(1, 5))
def test_merging_in_any_order_and_grouping_gives_the_same_bytes(seed, order, cut):
    shards = parts(seed, 6)
    one = merged(shards)
    shuffled = [shards[i] for i in order]
    same(one, merged(shuffled))
    grouped = [merged(shuffled[:cut]), merged(shuffled[cut:])]
    same(one, merged(grouped))
    same(one, update.merge([update.merge(shuffled[:cut]), update.merge(shuffled[cut:])]))


def test_the_sample_is_of_the_lowest_keys():
    shards = parts(0, 4)
    lines = np.concatenate([shard["copies"] for shard in shards])
    lines = sorted(map(tuple, lines[lines[:, 0] != sampling.NO_KEY]))
    kept = merged(shards)["copies"]
    kept = kept[kept[:, 0] != sampling.NO_KEY]
    assert [tuple(line) for line in kept] == lines[: len(kept)] and len(kept) == 60


@pytest.mark.long
def test_two_hundred_thousand_tokens_fold_to_the_same_integers(shared, tmp_path):
    paths = itertools.islice(sorted((shared / "data" / "corpus").glob("val-*")), 2)
    how = {
        **EVERYTHING,
        "corpus.paths": [str(path) for path in paths],
        "corpus.limit": 200_000,
        "plan.step_sequences": 8,
        "plan.overlap": 0,
        "store.shard_tokens": 65_536,
        "lens.block": None,
    }
    sweep.run(configure(PACKAGED, "", tmp_path / "run", **how))
    with jaxlens.open_run(tmp_path / "run") as run:
        assert run.n_rows == 200_000
        same(of_device(run), fold.of_rows(run))


@pytest.mark.parametrize("group", [[], [3], [2, 0, 2, 5, 0]])
def test_rows_by_group(group):
    found = {number: part.tolist() for number, part in fold.by_group(np.array(group, int))}
    assert found == {g: [i for i, each in enumerate(group) if each == g] for g in set(group)}
