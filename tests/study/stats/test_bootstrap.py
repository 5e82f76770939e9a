import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxlens.study.stats import bootstrap

ROUNDING = 1e-12
"""Float64 sums of a few hundred numbers of order one."""


def ratio(totals):
    return totals[:, 0] / totals[:, 1]


def sample(groups=64, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 50, groups)
    return np.stack([rng.normal(3, 1, groups) * counts, counts], axis=1)


def test_estimates_are_equal_where_their_fields_are_and_nan_equals_nan():
    one, other = (bootstrap.Estimate(1.0, float("nan"), float("nan"), 0.1, 3, 2) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != dataclasses.replace(other, low=0.0)
    assert one != dataclasses.replace(other, n=4)
    assert bootstrap.missing("no data") == bootstrap.missing("no data")
    assert bootstrap.missing("no data") != bootstrap.missing("too few clusters")


def test_weights_are_poisson_with_mean_one():
    drawn = bootstrap.weights(256)
    observed = np.bincount(drawn.ravel(), minlength=8)[:8]
    expected = stats.poisson(1).pmf(np.arange(8)) * drawn.size
    # Eight counts of 128,000 draws: three sigma of a chi-square with seven degrees is about 22.
    assert ((observed - expected) ** 2 / expected).sum() < 22
    assert drawn.shape == (500, 256)
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.2


def test_weights_are_pinned_so_that_every_host_agrees():
    assert bootstrap.weights(12, 2, seed=0).tolist() == PINNED
    assert bootstrap.weights(3, 1, seed=-1).tolist() == bootstrap.weights(3, 1, 2**64 - 1).tolist()


def test_fewer_groups_or_replicas_get_a_corner_of_the_weights():
    assert (bootstrap.weights(256)[:7, :9] == bootstrap.weights(9, 7)).all()
    assert (bootstrap.weights(9, 7, seed=1) != bootstrap.weights(9, 7)).any()


def test_thresholds_are_the_distribution_function_to_the_last_bit_of_a_float():
    found = bootstrap._thresholds().astype(np.float64) / 2.0**64
    assert np.allclose(found, stats.poisson(1).cdf(np.arange(len(found))), rtol=1e-15, atol=0)


def test_replicates_of_integers_are_exact_on_both_paths():
    rng = np.random.default_rng(0)
    weight = bootstrap.weights(30, 20)
    for scale in (1, 2**40):  # below and above what float64 holds exactly
        sums = rng.integers(-1000, 1000, (30, 2, 3)) * scale
        found = bootstrap.replicate(sums, weight)
        assert found.dtype == np.int64
        assert (found == np.tensordot(weight.astype(object), sums.astype(object), 1)).all()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_effective_number_lies_between_one_and_the_number_of_groups(sizes):
    found = bootstrap.effective(np.array(sizes))
    assert 1 - ROUNDING <= found <= len(sizes) + ROUNDING
    assert math.isclose(bootstrap.effective(np.full(7, sizes[0])), 7)


def test_standard_error_is_that_of_a_ratio_mean():
    tally = sample(groups=200)
    found = bootstrap.bootstrap(ratio, (tally,), tally[:, 1])
    value = tally[:, 0].sum() / tally[:, 1].sum()
    scores = (tally[:, 0] - value * tally[:, 1]) / tally[:, 1].sum()
    assert math.isclose(found.value, value)
    # The sd of 500 replicas has a standard error of 3 %; effective is below real size.
    assert math.isclose(found.se, np.sqrt(np.square(scores).sum()), rel_tol=0.12)
    assert found.clusters == 200
    assert found.n == tally[:, 1].sum()
    reach = stats.t.ppf(0.975, found.df) * found.se
    assert math.isclose(found.high - found.value, reach)


def test_percentile_ends_are_quantiles_of_the_replicas():
    tally = sample()
    found = bootstrap.bootstrap(ratio, (tally,), tally[:, 1], kind="percentile")
    replicas = ratio(bootstrap.replicate(tally, bootstrap.weights(64)))
    assert found.low == np.quantile(replicas, 0.025)
    assert found.high == np.quantile(replicas, 0.975)


def test_empty_groups_change_nothing_but_their_weights():
    tally = sample(groups=40)
    padded = np.concatenate([tally, np.zeros((24, 2))])
    plain = bootstrap.bootstrap(ratio, (tally,), tally[:, 1])
    assert bootstrap.bootstrap(ratio, (padded,), padded[:, 1]) == plain


def test_fewer_than_ten_groups_are_too_few():
    tally = sample(groups=9)
    found = bootstrap.bootstrap(ratio, (tally,), tally[:, 1])
    assert math.isfinite(found.value)
    assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(found.se)
    assert found.note == "too few clusters"
    assert math.isnan(bootstrap.p_value(found))


def test_nothing_is_no_data_and_a_rare_statistic_is_undefined():
    with np.errstate(invalid="ignore"):
        nothing = bootstrap.bootstrap(ratio, (np.zeros((20, 2)),), np.zeros(20, int))
    assert math.isnan(nothing.value) and nothing.note == bootstrap.EMPTY
    replicas = np.where(np.arange(500) < 100, np.nan, 1.0)
    assert bootstrap.interval(1.0, replicas, np.ones(20)).note == bootstrap.UNSTABLE


def test_p_value_agrees_with_the_interval():
    tally = sample()
    found = bootstrap.bootstrap(ratio, (tally,), tally[:, 1])
    assert math.isclose(bootstrap.p_value(found, found.low), 0.05, rel_tol=1e-9)
    certain = bootstrap.Estimate(1.0, 1.0, 1.0, 0.0, 5, 20)
    assert bootstrap.p_value(certain) == 0.0
    assert bootstrap.p_value(certain, 1.0) == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_has_no_interval(value):
    assert math.isnan(bootstrap.interval(value, np.ones(500), np.ones(20)).value)


PINNED = [[0, 0, 2, 0, 1, 0, 1, 0, 3, 0, 1, 2], [0, 0, 0, 0, 1, 1, 3, 3, 0, 1, 0, 3]]
