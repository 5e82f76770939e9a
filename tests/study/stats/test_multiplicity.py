import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats import multitest

from jaxlens.study.stats import multiplicity

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P)
def test_holm_is_the_step_down_of_the_paper(p):
    order = sorted(range(len(p)), key=p.__getitem__)
    running, expected = 0.0, {}
    for step, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - step) * p[i]))
        expected[i] = running
    assert np.allclose(multiplicity.holm(np.array(p)), [expected[i] for i in range(len(p))])


@given(P)
def test_false_discovery_rates_are_those_of_statsmodels(p):
    expected = multitest.multipletests(p, method="fdr_bh")[1]
    found = multiplicity.benjamini_hochberg(np.array(p))
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-300)


def test_holm_is_that_of_statsmodels():
    p = np.array([0.04, 0.001, 0.03, 0.02])  # once: each call takes it half a second
    assert np.allclose(multiplicity.holm(p), multitest.multipletests(p, method="holm")[1])


def test_a_test_without_a_p_value_counts_in_the_family_of_holm():
    found = multiplicity.holm(np.array([math.nan, 0.01, 0.02]))
    assert np.allclose(found, [math.nan, 0.03, 0.04], equal_nan=True)
    found = multiplicity.benjamini_hochberg(np.array([math.nan, 0.01]))
    assert np.allclose(found, [math.nan, 0.01], equal_nan=True)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.3, "larger than matters"),
        (-0.3, -0.1, "larger than matters"),
        (0.01, 0.3, "undecided"),
        (-0.3, 0.3, "undecided"),
        (-0.01, 0.09, "smaller than matters"),
        (math.nan, math.nan, "not estimable"),
    ],
)
def test_verdicts_compare_the_interval_with_the_smallest_effect(low, high, expected):
    assert multiplicity.judge(0.0, low, high, multiplicity.SMALLEST["rho"]) == expected
