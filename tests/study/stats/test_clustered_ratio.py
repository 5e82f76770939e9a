"""Ratios over clusters: the value by hand, the interval by coverage of what is planted."""

import math

import numpy as np
import pytest
from study import planted_clusters

from jaxlens.study.stats import bootstrap, clustered_ratio

BAND, REPLICAS = (0.93, 0.97), 2_000
"""A correct 95 % interval leaves the band in one of 25,000 sets of so many replicas."""

QUICK, QUICK_BAND = 100, (0.87, 1.0)
"""A correct 95 % interval leaves it in one of 600 sets of a hundred replicas."""


def test_a_mean_weighs_by_size_and_its_jackknife_is_that_of_left_out_clusters():
    random = np.random.default_rng(0)
    cluster = random.integers(0, 40, 300)
    value, size = random.normal(2, 1, 300), random.integers(1, 9, 300)
    found = clustered_ratio.mean(value, size, cluster)
    assert found.value == pytest.approx(np.average(value, weights=size))
    assert (found.n, found.clusters) == (size.sum(), 40)
    without = np.array(
        [np.average(value[cluster != c], weights=size[cluster != c]) for c in range(40)]
    )
    expected = math.sqrt(39 / 40 * np.square(without - without.mean()).sum())
    assert found.se == pytest.approx(expected)
    sizes = np.bincount(cluster, size)
    assert found.df == pytest.approx(bootstrap.effective(sizes) - 1)
    assert found.low < found.value < found.high


def test_a_ratio_is_that_of_the_sums():
    random = np.random.default_rng(1)
    top, bottom = random.normal(1, 0.1, 50), random.normal(4, 0.1, 50)
    found = clustered_ratio.ratio(top, bottom, np.ones(50))
    assert found.value == pytest.approx(top.sum() / bottom.sum())
    assert found.low < 0.25 < found.high and found.high - found.low < 0.02


def test_skewness_moves_the_ends():
    random = np.random.default_rng(2)
    found = clustered_ratio.mean(random.exponential(1, 60) ** 2, np.ones(60), np.arange(60))
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_without_enough_clusters_of_like_size_there_is_no_interval():
    value = np.random.default_rng(3).normal(0, 1, 40)
    few = clustered_ratio.mean(value[:14], np.ones(14), np.arange(14))
    assert math.isnan(few.low) and few.note == clustered_ratio.FEW
    assert few.value == pytest.approx(value[:14].mean())
    uneven = np.ones(40)
    uneven[0] = 500
    assert clustered_ratio.mean(value, uneven, np.arange(40)).note == clustered_ratio.FEW
    assert clustered_ratio.mean(value[:0], uneven[:0], uneven[:0]).note == bootstrap.EMPTY


def test_a_denominator_that_may_be_0_gives_no_interval():
    random = np.random.default_rng(4)
    top = random.normal(1, 1, 50)
    found = clustered_ratio.ratio(top, random.normal(0.05, 1, 50), np.ones(50))
    assert math.isnan(found.low) and found.note == clustered_ratio.NO_DENOMINATOR
    negative = clustered_ratio.ratio(top, -np.ones(50), np.ones(50))
    assert math.isnan(negative.value) and negative.note == clustered_ratio.NO_DENOMINATOR


def test_where_nothing_varies_the_interval_is_the_value():
    found = clustered_ratio.mean(np.full(30, 2.0), np.ones(30), np.arange(30))
    assert found.low == pytest.approx(2) and found.high == pytest.approx(2)


CASES = [
    (kind, tails, tied)
    for kind in planted_clusters.SIZES
    for tails in planted_clusters.TAILS
    for tied in planted_clusters.TIED
    if kind != "equal" or not tied
]


@pytest.mark.parametrize(("kind", "tails", "tied"), CASES)
def test_quick_look_at_the_coverage(kind, tails, tied):
    covered = planted_clusters.coverage(kind, tails, tied, 20, QUICK)
    assert QUICK_BAND[0] <= covered <= QUICK_BAND[1]


def test_an_interval_that_takes_observations_as_independent_would_not_cover():
    random = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        size = planted_clusters.sizes("two lags", 60, random)
        value = planted_clusters.values("normal", size, 0.0, random)
        se = math.sqrt(np.average(np.square(value - 1), weights=size) / size.sum())
        held += abs(np.average(value, weights=size) - 1) < 1.96 * se
    assert held < 50


@pytest.mark.long
@pytest.mark.parametrize("effective", [15, 20, 40, 100])
@pytest.mark.parametrize(("kind", "tails", "tied"), CASES)
def test_intervals_cover_what_is_planted(kind, tails, tied, effective):
    covered = planted_clusters.coverage(kind, tails, tied, effective, REPLICAS)
    print(kind, tails, tied, effective, covered)
    assert BAND[0] <= covered <= BAND[1]
