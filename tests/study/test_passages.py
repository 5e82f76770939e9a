import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.duration import survfunc

from jaxlens.study import inputs, passages
from jaxlens.study.stats import bootstrap, shares

COUNTS = st.lists(st.integers(0, 9), min_size=7, max_size=7)
GROUPS = 40


def run_of(n_layers):
    names = ("input", *(f"h.{i}" for i in range(n_layers - 1)))
    return inputs.RunInfo(None, "trained", "trained", {}, names)  # type: ignore[arg-type]


def grouped(counts, seed=0):
    """Events by layer, put into groups at random."""
    event = np.repeat(np.arange(len(counts)), counts)
    group = np.random.default_rng(seed).integers(0, GROUPS, len(event))
    made = np.zeros((GROUPS, len(counts)), np.int64)
    np.add.at(made, (group, event), 1)
    return made


def kaplan_meier(counts):
    """The oracle, which takes what never happens as censored at the last layer."""
    layers = np.repeat(np.arange(len(counts) - 1), counts[:-1])
    time = np.concatenate([layers, np.repeat(len(counts) - 2, counts[-1])])
    # Layers start at 1 here: statsmodels refuses a time of 0.
    return survfunc.SurvfuncRight(time + 1, np.repeat([1, 0], [len(layers), counts[-1]]))


@given(COUNTS)
def test_shares_are_those_of_kaplan_and_meier(counts):
    if not sum(counts[:-1]):
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        oracle = kaplan_meier(counts)
    _, *remaining = passages.lines(run_of(6), "half_life", grouped(counts))
    layer = oracle.surv_times.astype(int) - 1
    assert np.allclose([remaining[i].estimate for i in layer], oracle.surv_prob)


def test_intervals_of_the_median_end_where_those_of_the_shares_cross_one_half():
    counts = np.array([50, 90, 140, 110, 60, 30, 150])
    run = run_of(6)
    median, *remaining = passages.lines(run, "half_life", grouped(counts))
    oracle = kaplan_meier(counts)
    assert median.estimate == run.depths[int(oracle.quantile(0.5)) - 1]
    for end in ("low", "high"):
        crossed = [getattr(line, end) <= 0.5 for line in remaining].index(True)
        assert getattr(median, end) == run.depths[crossed]
    assert median.low <= median.estimate <= median.high and median.n == counts.sum()


def test_intervals_are_those_of_shares_by_group():
    counts = grouped(np.array([50, 90, 140, 110, 60, 30, 150]))
    _, *remaining = passages.lines(run_of(6), "half_life", counts)
    for layer, line in enumerate(remaining):
        expected = shares.of_groups(counts[:, layer + 1 :].sum(1), counts.sum(1))
        assert (line.estimate, line.low, line.high) == (expected.value, expected.low, expected.high)


def test_a_median_that_is_never_reached_is_nan_and_says_why():
    median, *rest = passages.lines(run_of(3), "half_life", grouped([40, 0, 0, 360]))
    assert math.isnan(median.estimate) and math.isnan(median.high)
    assert median.note == "less than half by the last layer"
    assert [line.estimate for line in rest] == pytest.approx([0.9, 0.9, 0.9])
    median, *rest = passages.lines(run_of(3), "half_life", np.zeros((GROUPS, 4), int))
    assert {line.note for line in (median, *rest)} == {bootstrap.EMPTY}
    assert all(math.isnan(line.estimate) for line in (median, *rest))


def test_a_share_of_what_happened_is_the_rest():
    counts = grouped([200, 300, 500])
    _, *happened = passages.lines(run_of(2), "settled_within_1", counts, happened=True)
    _, *remaining = passages.lines(run_of(2), "half_life", counts)
    for one, other in zip(happened, remaining, strict=True):
        assert one.estimate == pytest.approx(1 - other.estimate)
        assert one.low == pytest.approx(1 - other.high) and one.se == pytest.approx(other.se)
    assert happened[0].estimator == "settled_within_1_share"
    assert remaining[0].estimator == "half_life_survival"


def test_all_that_is_gone_has_an_interval_within_0_and_1():
    _, first, last = passages.lines(run_of(2), "half_life", grouped([0, 400, 0]))
    assert (first.estimate, first.high) == (1.0, 1.0) and 0.8 < first.low < 1
    assert (last.estimate, last.low) == (0.0, 0.0) and 0 < last.high < 0.2


def test_lines_that_cannot_be_estimated_say_why():
    median, *rest = passages.lacking(run_of(3), "half_life", "for this reason")
    assert len(rest) == 3 and {line.note for line in (median, *rest)} == {"for this reason"}
    assert {line.estimator for line in rest} == {"half_life_survival"}
