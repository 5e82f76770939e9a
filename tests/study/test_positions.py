"""The sample of positions: which rows it takes, and what it says of them."""

import numpy as np
import pytest
from sweeps import configure

import jaxlens
from jaxlens.study import positions
from jaxlens.sweep import run as sweep
from jaxlens.tally import bins, sampling

WITH_ROWS = {"store.rows": "full", "store.shard_tokens": 512, "plan.overlap": 5}


@pytest.fixture(scope="module")
def rows(tiny, texts, tmp_path_factory):
    """A finished run of several shards with full rows."""
    out = tmp_path_factory.mktemp("runs") / "rows"
    assert sweep.run(configure(tiny, texts, out, **WITH_ROWS)).finished
    return out


def of_all_rows(run):
    """Rows that may be sampled, by their keys, and all that count."""
    columns = {name: np.asarray(run[name][:]) for name in positions.NEEDED}
    used = (columns["position"] > 0) & np.isfinite(columns["surprisal"])
    read = {name: column[used] for name, column in columns.items()}
    there = read["rank_foreign"][:, 0] > 0
    both = {name: column[there] for name, column in read.items()}
    key = sampling.key_of(run.corpus.documents.hash[both["document"]], both["offset"])
    order = np.argsort(key, kind="stable")
    return {name: column[order] for name, column in both.items()}, read


def test_the_sample_is_of_the_rows_with_the_lowest_keys(rows):
    with jaxlens.open_run(rows) as run:
        expected, read = of_all_rows(run)
        found = positions.sample(run, most=300)
        counts = run.corpus.token_counts
        groups = bins.group_of(run.corpus.documents.hash)
    assert len(expected["token"]) > 400 and found.token.shape == (2, 300)
    for side, (token, rank) in enumerate((("token", "input"), ("foreign_token", "foreign"))):
        np.testing.assert_array_equal(found.token[side], expected[token][:300])
        np.testing.assert_array_equal(found.rank[side], expected[f"rank_{rank}"][:300])
        assert found.rank[side].min() >= 1 and found.token[side].min() >= 0
    document = expected["document"][:300]
    np.testing.assert_array_equal(found.group, groups[document])
    total = counts.sum(0)
    rarity = -np.log((total + 0.5) / (total.sum() + len(total) / 2))
    assert found.centre == pytest.approx((total * rarity).sum() / total.sum())
    np.testing.assert_allclose(found.rarity, rarity - found.centre)
    for power in (1, 2):
        x = found.rarity[read["token"]] ** power
        of_document = [x[read["document"] == d].mean() for d in document]
        np.testing.assert_allclose(found.level[:, power - 1], of_document, atol=1e-12)


def test_all_rows_are_taken_where_there_are_few(rows):
    with jaxlens.open_run(rows) as run:
        expected, _ = of_all_rows(run)
        assert positions.sample(run).group.size == len(expected["token"])


def test_shards_and_batches_do_not_move_the_sample(rows, tiny, texts, tmp_path, monkeypatch):
    out = tmp_path / "whole"
    assert sweep.run(
        configure(tiny, texts, out, **WITH_ROWS | {"store.shard_tokens": 4096})
    ).finished
    with jaxlens.open_run(rows) as run, jaxlens.open_run(out) as other:
        one = positions.sample(run, most=300)
        monkeypatch.setattr(positions, "_BATCH", 100)
        two, three = positions.sample(run, most=300), positions.sample(other, most=300)
    for name, value in one._asdict().items():
        np.testing.assert_allclose(getattr(two, name), value, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(getattr(three, name), value, rtol=1e-12, atol=1e-12)


def test_a_run_without_rows_has_no_sample(studied):
    with jaxlens.open_run(studied / "trained") as run:
        assert positions.sample(run) is None
