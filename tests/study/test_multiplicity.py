import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import multitest

from jaxlens.study import multiplicity

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=10)  # half a second a call in statsmodels
@given(P)
def test_adjusted_p_values_are_those_of_statsmodels(p):
    for name, adjust in (("holm", multiplicity.holm), ("fdr_bh", multiplicity.benjamini_hochberg)):
        expected = multitest.multipletests(p, method=name)[1]
        assert np.allclose(adjust(np.array(p)), expected, rtol=1e-12, atol=1e-300)


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
