import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from jaxlens.study.stats import correlation

TABLES = arrays.arrays(np.int64, (4, 5), elements=st.integers(0, 6))


def expand(joint):
    """Bin numbers of every observation, one row a variable."""
    return np.repeat(np.indices(joint.shape).reshape(joint.ndim, -1), joint.ravel(), axis=1)


@given(TABLES)
def test_spearman_is_that_of_the_expanded_data(joint):
    a, b = expand(joint)
    found = correlation.spearman(joint)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert math.isnan(found)
    else:
        assert math.isclose(found, stats.spearmanr(a, b).statistic, abs_tol=1e-12)


@given(TABLES)
def test_spearman_ignores_duplication_and_turns_with_an_axis(joint):
    found = correlation.spearman(joint)
    assert np.allclose(correlation.spearman(joint * 3), found, equal_nan=True)
    assert np.allclose(correlation.spearman(joint[::-1]), -found, equal_nan=True)
    assert np.allclose(correlation.spearman(joint.T), found, equal_nan=True)


def cube(seed=0):
    rng = np.random.default_rng(seed)
    frequency = rng.normal(size=3000)
    surprisal = 0.6 * frequency + rng.normal(size=3000)
    rank = 0.5 * surprisal + 0.3 * frequency + rng.normal(size=3000)
    bins = [np.clip((x * 2 + 6).astype(int), 0, 11) for x in (frequency, surprisal, rank)]
    joint = np.zeros((12, 12, 12), np.int64)
    np.add.at(joint, tuple(bins), 1)
    return joint, bins


def test_partial_is_the_correlation_of_residuals_of_mid_ranks():
    joint, bins = cube()
    frequency, surprisal, rank = (stats.rankdata(x) for x in bins)

    def residual(y, x):
        return y - np.polyval(np.polyfit(x, y, 1), x)

    given_frequency = np.corrcoef(residual(rank, frequency), residual(surprisal, frequency))[0, 1]
    given_surprisal = np.corrcoef(residual(rank, surprisal), residual(frequency, surprisal))[0, 1]
    found = correlation.partial_spearman(joint)
    assert np.allclose(found, [given_frequency, given_surprisal], atol=1e-10)
    stacked = correlation.partial_spearman(np.stack([joint, joint]))  # layers
    assert np.allclose(stacked, np.array(found)[:, None])


def test_partial_is_nan_where_the_control_determines_a_variable():
    joint = np.zeros((3, 3, 4), np.int64)
    joint[[0, 1, 2], [0, 1, 2]] = np.arange(1, 5)  # surprisal is frequency
    assert np.isnan(correlation.partial_spearman(joint)).all()


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_interval_covers_the_rank_correlation(rho):
    rng = np.random.default_rng(1)
    truth = 6 / math.pi * math.asin(rho / 2)
    covered = 0
    for _ in range(300):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 80).T
        found = correlation.interval(stats.spearmanr(x, y).statistic, 80)
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.91


def test_interval_widens_with_the_design_effect_and_ends_with_too_few():
    plain, wide = (correlation.interval(0.3, 1000, 1, design) for design in (1.0, 4.0))
    assert wide == correlation.interval(0.3, 250, 1).__class__(
        wide.value, wide.low, wide.high, wide.se, 1000, 0
    )
    assert wide.high - wide.low > plain.high - plain.low
    assert math.isnan(correlation.interval(0.3, 8).low)
    assert math.isnan(correlation.interval(math.nan, 800).value)
    certain = correlation.interval(1.0, 100)
    assert certain.low <= 1.0 <= certain.high <= 1.0


def test_design_effect_is_one_plus_the_intraclass_correlation():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(2000, 1)) * np.sqrt(0.2) + rng.normal(size=(2000, 11)) * np.sqrt(0.8)
    found = correlation.design_effect(
        np.full(2000, 11), values.sum(axis=1), np.square(values).sum()
    )
    assert math.isclose(found, 1 + 10 * 0.2, rel_tol=0.1)
    assert math.isnan(correlation.design_effect(np.array([5]), np.array([1.0]), 5.0))
