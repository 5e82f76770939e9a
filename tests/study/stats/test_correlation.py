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


def grouped(rng, groups, rho, dependence, tail=0.7):
    """Two columns and an outcome of known partial correlation, and the groups of the rows."""
    sizes = np.rint(np.exp(tail * rng.normal(0, 1, groups)) * 60).astype(int) + 5
    group = np.repeat(np.arange(groups), sizes)
    common = rng.normal(0, dependence, (3, groups))[:, group]
    held, other, noise = rng.normal(0, 1, (3, len(group))) + common
    y = held + rho / math.sqrt(1 - rho * rho) * other + noise
    return group, np.stack([np.ones(len(y)), held, other + 0.5 * held], axis=1), y


def products(group, x, y, groups=256):
    def summed(values):
        out = np.zeros((groups, *values.shape[1:]))
        np.add.at(out, group, values)
        return out

    squares = x[:, :, None] * x[:, None, :]
    return summed(squares), summed(x * y[:, None]), summed(y * y), np.bincount(group, minlength=256)


def test_partial_correlation_of_groups_is_that_of_residuals():
    group, x, y = grouped(np.random.default_rng(3), 80, 0.3, 0.4)
    found = correlation.partial_of_groups(*products(group, x, y))
    left = [v - x[:, :2] @ np.linalg.lstsq(x[:, :2], v)[0] for v in (x[:, 2], y)]
    assert math.isclose(found.value, np.corrcoef(*left)[0, 1], rel_tol=1e-9)
    assert found.low < found.value < found.high and found.n == len(y)


@pytest.mark.parametrize("rho", [0.0, 0.4])
@pytest.mark.parametrize("dependence", [0.2, 1.0])
def test_partial_correlation_covers(rho, dependence):
    rng = np.random.default_rng(4)
    # Columns and noise share their dependence, so that the partial correlation is that of rows.
    found = [
        correlation.partial_of_groups(*products(*grouped(rng, 60, rho, dependence)))
        for _ in range(100)
    ]
    assert np.mean([e.low <= rho <= e.high for e in found]) >= 0.88


def test_partial_correlation_of_what_does_not_vary_is_missing():
    group, x, y = grouped(np.random.default_rng(5), 80, 0.3, 0.4)
    x[:, 2] = 1.0
    assert math.isnan(correlation.partial_of_groups(*products(group, x, y)).value)
