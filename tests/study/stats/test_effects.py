import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxlens.study.stats import effects

DEPTHS = st.lists(st.integers(0, 12), min_size=2, max_size=25)
SAMPLES = st.lists(st.floats(-50, 50), min_size=1, max_size=20)
LAST_BITS = 1e-9
"""Differences of numbers to 50 in float64, summed differently."""


def differences(x, y):
    return np.subtract.outer(np.asarray(x, float), np.asarray(y, float))


@given(DEPTHS, DEPTHS)
def test_delta_is_the_share_of_pairs_and_the_rank_sum_statistic(x, y):
    found = effects.cliff(x, y)
    assert math.isclose(found.value, np.sign(differences(x, y)).mean(), abs_tol=1e-12)
    u = stats.mannwhitneyu(x, y, method="asymptotic").statistic if set(x) | set(y) else 0
    assert math.isclose(found.value, 2 * u / (len(x) * len(y)) - 1, abs_tol=1e-12)
    assert -1 <= found.low <= found.value <= found.high <= 1


@given(DEPTHS, DEPTHS)
def test_delta_turns_with_the_samples_and_ignores_monotone_maps(x, y):
    found, turned = effects.cliff(x, y), effects.cliff(y, x)
    assert math.isclose(found.value, -turned.value, abs_tol=1e-12)
    assert math.isclose(found.low, -turned.high, abs_tol=1e-12)
    assert effects.cliff(np.exp(x), np.exp(y)) == found


@given(DEPTHS, DEPTHS)
def test_variance_of_delta_is_the_unbiased_form_by_hand(x, y):
    signs = np.sign(differences(x, y))
    n, m, d = len(x), len(y), signs.mean()
    rows = ((signs.mean(axis=1) - d) ** 2).sum()
    columns = ((signs.mean(axis=0) - d) ** 2).sum()
    variance = (m * m * rows + n * n * columns - ((signs - d) ** 2).sum()) / (
        n * m * (n - 1) * (m - 1)
    )
    expected = math.sqrt(max(variance, (1 - d * d) / (n * m - 1)))
    assert math.isclose(effects.cliff(x, y).se, expected, abs_tol=1e-9)


def test_delta_of_samples_apart_proves_no_certainty():
    found = effects.cliff([3, 4, 5, 6], [0, 1, 2])
    assert found.value == found.high == 1.0
    assert found.low < 0.5
    assert effects.cliff([0, 1, 2], [3, 4, 5, 6]).high == -found.low
    assert math.isnan(effects.cliff([1], [2]).low)
    assert math.isnan(effects.cliff([], [2]).value)


@pytest.mark.parametrize("shift", [0, 1])
def test_delta_and_centre_cover_their_truths(shift):
    rng = np.random.default_rng(3)
    big = rng.binomial(12, 0.5, (2, 4000))
    truth = effects.cliff(big[0] + shift, big[1]).value
    covered = np.zeros(2)
    for _ in range(200):
        x, y = rng.binomial(12, 0.5, 40) + shift, rng.binomial(12, 0.5, 60)
        delta, moved = effects.cliff(x, y), effects.hodges_lehmann(x - y[:40])
        covered += [delta.low <= truth <= delta.high, moved.low <= shift <= moved.high]
    assert (covered / 200 >= 0.91).all()


@given(SAMPLES)
def test_centre_is_the_median_of_all_walsh_averages(d):
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(d, 2)]
    found = effects.hodges_lehmann(np.array(d))
    assert math.isclose(found.value, np.median(walsh), abs_tol=LAST_BITS)


def test_ends_of_the_centre_are_where_the_signed_rank_test_turns():
    d = np.random.default_rng(1).normal(0.4, 1, 40)
    found = effects.hodges_lehmann(d)

    def p(centre):
        return stats.wilcoxon(d - centre, method="asymptotic", correction=False).pvalue

    for end, inward in ((found.low, 1e-6), (found.high, -1e-6)):
        assert p(end - inward) < 0.05 <= p(end + inward)


@pytest.mark.parametrize("values", [np.arange(6), np.full(6, 3.0)])
def test_ties_are_exact(values):
    found = effects.hodges_lehmann(np.tile(values, 20))
    assert found.value == np.mean(values)
    assert found.low <= found.value <= found.high
    assert 2 * found.low == int(2 * found.low) and 2 * found.high == int(2 * found.high)


def test_missing_values_are_left_out_and_few_have_no_interval():
    assert effects.cliff([1, math.nan, 3], [0, 0]).n == 4
    assert effects.hodges_lehmann([1, math.nan, 3]).n == 2
    assert math.isnan(effects.hodges_lehmann([1, 2]).low)
    assert math.isnan(effects.hodges_lehmann([]).value)
    assert math.isnan(effects.hodges_lehmann([math.nan]).value)


def test_large_samples_need_no_table_of_pairs():
    rng = np.random.default_rng(2)
    found = effects.hodges_lehmann(rng.normal(1, 1, 20_000))
    assert found.low < 1 < found.high
    assert found.high - found.low < 0.03


def test_design_effect_widens_every_interval():
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 9, 200), rng.integers(1, 10, 200)
    for estimate, samples in ((effects.cliff, (x, y)), (effects.hodges_lehmann, (x - y,))):
        plain, wide = estimate(*samples), estimate(*samples, design_effect=4.0)
        assert wide.high - wide.low > plain.high - plain.low
