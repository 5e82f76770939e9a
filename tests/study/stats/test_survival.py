import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.duration import survfunc

from jaxlens.study.stats import survival

COUNTS = st.lists(st.integers(0, 9), min_size=6, max_size=6)


def expand(events, censored):
    depth = np.arange(len(events))
    time = np.concatenate([np.repeat(depth, events), np.repeat(depth, censored)])
    # Depths start at 1 here: statsmodels refuses a time of 0.
    return time + 1, np.repeat([1, 0], [sum(events), sum(censored)])


@given(COUNTS, COUNTS)
def test_curve_is_that_of_statsmodels(events, censored):
    if not sum(events):
        return
    time, status = expand(events, censored)
    with np.errstate(divide="ignore", invalid="ignore"):
        oracle = survfunc.SurvfuncRight(time, status)
    found = survival.kaplan_meier(events, censored)
    place = oracle.surv_times.astype(int) - 1
    assert np.allclose(found.survival[place], oracle.surv_prob)
    # Greenwood's term is 0/0 where all die; statsmodels has NaN there, a curve of 0 has no error.
    alive = oracle.surv_prob > 0
    assert np.allclose(found.se[place][alive], oracle.surv_prob_se[alive])
    assert np.allclose(found.at_risk[place], oracle.n_risk)


def test_log_log_interval_is_the_textbook_formula():
    events, censored = [3, 2, 4, 0, 1], [0, 1, 0, 0, 9]
    found = survival.kaplan_meier(events, censored)
    s, se = found.survival[2], found.se[2]
    # exp(-exp(log(-log S) ± 1.96 se / (S |log S|)))
    spread = 1.959963984540054 * se / (s * abs(math.log(s)))
    ends = [math.exp(-math.exp(math.log(-math.log(s)) + sign * spread)) for sign in (1, -1)]
    assert np.allclose([found.low[2], found.high[2]], ends)
    assert found.median == 4 and found.n == 20


def test_interval_of_the_median_is_that_of_statsmodels():
    events, censored = [5, 9, 14, 11, 6, 3], [0, 2, 0, 1, 0, 12]
    time, status = expand(events, censored)
    oracle = survfunc.SurvfuncRight(time, status)
    found = survival.kaplan_meier(events, censored)
    low, high = oracle.quantile_ci(0.5, method="cloglog")
    # statsmodels gives the set where the curve is compatible with one half; its upper end is the
    # last such time, ours the first depth at which the upper curve has crossed.
    assert found.median == oracle.quantile(0.5) - 1
    assert found.median_low == low - 1
    assert found.median_high >= found.median and math.isfinite(high)


def test_a_median_that_is_never_reached_is_nan():
    found = survival.kaplan_meier([1, 0, 0], [0, 0, 9])
    assert math.isnan(found.median) and math.isnan(found.median_high)
    assert math.isnan(survival.kaplan_meier([0, 0], [0, 0]).survival[0])


def test_replicas_go_through_one_call_and_depths_have_names():
    events = np.array([[1, 2, 3], [2, 4, 6]])
    censored = np.array([[0, 0, 4], [0, 0, 8]])
    found = survival.curve(events, censored)
    assert np.allclose(found[0], found[1])
    assert np.allclose(found[0], [0.9, 0.7, 0.4])
    assert survival.median(found, np.array([0.0, 0.5, 1.0])).tolist() == [1.0, 1.0]


def test_design_effect_multiplies_the_variance():
    plain, wide = (survival.kaplan_meier([5, 5, 5], [0, 0, 9], design_effect=d) for d in (1.0, 4.0))
    assert np.allclose(wide.se, 2 * plain.se)


@pytest.mark.parametrize("factor", [2, 7])
def test_duplicated_data_keep_the_curve_and_shrink_its_error(factor):
    events, censored = np.array([4, 3, 2]), np.array([0, 0, 5])
    one, many = (survival.kaplan_meier(events * f, censored * f) for f in (1, factor))
    assert np.allclose(one.survival, many.survival)
    assert np.allclose(one.se, many.se * math.sqrt(factor))
