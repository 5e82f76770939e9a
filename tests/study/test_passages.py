import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.duration import survfunc

from jaxlens.study import inputs, passages
from jaxlens.study.stats import proportions

COUNTS = st.lists(st.integers(0, 9), min_size=7, max_size=7)


def run_of(n_layers):
    names = ("input", *(f"h.{i}" for i in range(n_layers - 1)))
    return inputs.RunInfo(None, "trained", "trained", {}, names)  # type: ignore[arg-type]


def curve(counts, design_effect=1.0):
    """Remaining shares of events by layer, the last entry being those that never happen."""
    n = sum(counts)
    return proportions.log_log(n - np.cumsum(counts[:-1]), n, design_effect)


def kaplan_meier(counts):
    """The oracle, which takes what never happens as censored at the last layer."""
    layers = np.repeat(np.arange(len(counts) - 1), counts[:-1])
    time = np.concatenate([layers, np.repeat(len(counts) - 2, counts[-1])])
    # Layers start at 1 here: statsmodels refuses a time of 0.
    return survfunc.SurvfuncRight(time + 1, np.repeat([1, 0], [len(layers), counts[-1]]))


@given(COUNTS)
def test_shares_and_errors_are_those_of_kaplan_and_meier(counts):
    if not sum(counts[:-1]):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        oracle = kaplan_meier(counts)
    remaining = curve(counts)
    layer = oracle.surv_times.astype(int) - 1
    assert np.allclose(remaining.value[layer], oracle.surv_prob)
    # Greenwood's term is 0/0 where all die; statsmodels has NaN there, a curve of 0 has no error.
    alive = oracle.surv_prob > 0
    assert np.allclose(remaining.se[layer][alive], oracle.surv_prob_se[alive])


def test_log_log_interval_is_the_textbook_formula():
    remaining = curve([3, 2, 4, 0, 1, 10])
    s, se = remaining.value[2], remaining.se[2]
    # exp(-exp(log(-log S) ± 1.96 se / (S |log S|)))
    spread = 1.959963984540054 * se / (s * abs(math.log(s)))
    ends = [math.exp(-math.exp(math.log(-math.log(s)) + sign * spread)) for sign in (1, -1)]
    assert np.allclose([remaining.low[2], remaining.high[2]], ends)


def test_interval_of_the_median_is_that_of_statsmodels():
    counts = [5, 9, 14, 11, 6, 3, 15]
    oracle = kaplan_meier(counts)
    run = run_of(6)
    median, *_ = passages.lines(run, "half_life", np.array(counts), effect=1.0)
    low, high = oracle.quantile_ci(0.5, method="cloglog")
    # statsmodels gives the set where the curve is compatible with one half; its upper end is the
    # last such time, ours the first depth at which the upper curve has crossed.
    assert median.estimate == run.depths[int(oracle.quantile(0.5)) - 1]
    assert median.low == run.depths[int(low) - 1]
    assert median.high >= median.estimate and math.isfinite(high)
    assert median.n == 63


def test_a_median_that_is_never_reached_is_nan_and_says_why():
    median, *shares = passages.lines(run_of(3), "half_life", np.array([1, 0, 0, 9]), effect=1.0)
    assert math.isnan(median.estimate) and math.isnan(median.high)
    assert median.note == "less than half by the last layer"
    assert [line.estimate for line in shares] == pytest.approx([0.9, 0.9, 0.9])
    median, *shares = passages.lines(run_of(3), "half_life", np.zeros(4, int), effect=1.0)
    assert {line.note for line in (median, shares[0])} == {
        "no data",
        "no data; interval widened by the design effect",
    }
    assert all(math.isnan(line.estimate) for line in (median, *shares))


def test_a_share_of_what_happened_is_the_rest():
    counts = np.array([2, 3, 5])
    _, *happened = passages.lines(run_of(2), "settled_within_1", counts, effect=2.0, happened=True)
    _, *remaining = passages.lines(run_of(2), "half_life", counts, effect=2.0)
    for one, other in zip(happened, remaining, strict=True):
        assert one.estimate == pytest.approx(1 - other.estimate)
        assert one.low == pytest.approx(1 - other.high) and one.se == other.se
    assert happened[0].estimator == "settled_within_1_share"
    assert remaining[0].estimator == "half_life_survival"


def test_all_that_is_gone_has_no_interval():
    _, first, last = passages.lines(run_of(2), "half_life", np.array([0, 4, 0]), effect=1.0)
    for line, share in ((first, 1.0), (last, 0.0)):
        assert line.estimate == share and line.se == 0 and math.isnan(line.low)
        assert line.note.startswith("a share of 0 or 1 has no interval")


def test_design_effect_multiplies_the_variance():
    plain, wide = (curve([5, 5, 5, 9], design_effect=d) for d in (1.0, 4.0))
    assert np.allclose(wide.se, 2 * plain.se)


@pytest.mark.parametrize("factor", [2, 7])
def test_duplicated_data_keep_the_curve_and_shrink_its_error(factor):
    counts = np.array([4, 3, 2, 5])
    one, many = (curve(counts * f) for f in (1, factor))
    assert np.allclose(one.value, many.value)
    assert np.allclose(one.se, many.se * math.sqrt(factor))
