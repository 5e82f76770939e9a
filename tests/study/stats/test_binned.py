import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.store import summary
from jaxlens.study.stats import binned
from jaxlens.tally import bins

EDGES = bins.RANK_EDGES
RANKS = st.lists(st.integers(1, 50_257), min_size=1, max_size=60)


def count(ranks, edges=EDGES):
    fine = bins.ln_rank_bins(max(ranks))[ranks]
    return np.bincount(fine // (128 // (len(edges) - 1)), minlength=len(edges) - 1)


@given(RANKS)
def test_median_is_that_of_the_store(ranks):
    histogram = count(ranks, bins.LN_RANK_EDGES)
    found = binned.ln_rank_quantile(histogram, bins.LN_RANK_EDGES)
    assert math.isclose(math.exp(found), summary.median_rank(histogram), rel_tol=1e-12)


@given(RANKS, st.sampled_from([0.25, 0.5, 0.75]))
def test_quantiles_are_right_to_a_bin(ranks, q):
    found = binned.ln_rank_quantile(count(ranks), EDGES, q)
    exact = np.log(np.quantile(ranks, q, method="inverted_cdf"))
    upper = np.log(np.quantile(ranks, q, method="higher"))
    assert exact - 0.2 - 1e-6 <= found <= upper + 0.2 + 1e-6


def test_quantile_of_mostly_first_ranks_is_exactly_zero_and_of_nothing_nan():
    histograms = np.stack([count([1, 1, 7]), np.zeros(64, int)])
    found = binned.ln_rank_quantile(histograms, EDGES)
    assert found[0] == 0.0
    assert math.isnan(found[1])


@given(st.lists(st.floats(1e-6, 30), min_size=1, max_size=60))
def test_bucket_quantile_is_right_to_a_bucket(values):
    edges = np.concatenate([[0], np.geomspace(1e-4, 32, 800)]).astype(np.float32)
    place = np.searchsorted(edges, np.float32(values), side="right") - 1
    found = binned.bucket_quantile(np.bincount(place, minlength=800), edges)
    middle = sorted(np.float32(values))[(len(values) - 1) // 2]
    bucket = np.searchsorted(edges, middle, side="right") - 1
    assert edges[bucket] * (1 - 1e-6) <= found <= edges[bucket + 1] * (1 + 1e-6)


def test_bucket_quantile_interpolates_the_logarithm_and_stops_at_infinity():
    edges = np.array([0, 1, 4, np.inf])
    assert binned.bucket_quantile(np.array([0, 2, 0]), edges) == 2.0
    assert binned.bucket_quantile(np.array([2, 0, 0]), edges) == 0.5
    assert binned.bucket_quantile(np.array([0, 0, 2]), edges) == 4.0
    assert math.isnan(binned.bucket_quantile(np.array([0, 0, 0]), edges))


@pytest.mark.parametrize("q", [0.0, 1.0])
def test_extreme_quantiles_lie_in_bins_that_hold_something(q):
    histogram = np.zeros(64, int)
    histogram[5:8] = 1
    found = binned.ln_rank_quantile(histogram, EDGES, q)
    assert EDGES[5] <= found <= EDGES[8]


def test_means_are_nan_where_nothing_was_counted():
    found = binned.mean(np.array([3 << 16, 0]), np.array([2, 0]))
    assert found[0] == 1.5
    assert math.isnan(found[1])
