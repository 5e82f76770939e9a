import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.study.stats.hodges_lehmann import hodges_lehmann

SAMPLES = st.lists(st.floats(-50, 50), min_size=1, max_size=20)
LAST_BITS = 1e-9
"""Differences of numbers to 50 in float64, summed differently."""


@given(SAMPLES)
def test_centre_is_the_median_of_all_walsh_averages(d):
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(d, 2)]
    assert math.isclose(hodges_lehmann(np.array(d)), np.median(walsh), abs_tol=LAST_BITS)


@pytest.mark.parametrize("values", [np.arange(6), np.full(6, 3.0)])
def test_ties_are_exact(values):
    assert hodges_lehmann(np.tile(values, 20)) == np.mean(values)


def test_missing_values_are_left_out():
    assert hodges_lehmann(np.array([1, math.nan, 3])) == 2
    assert math.isnan(hodges_lehmann(np.array([])))
    assert math.isnan(hodges_lehmann(np.array([math.nan])))


def test_large_samples_need_no_table_of_pairs():
    found = hodges_lehmann(np.random.default_rng(2).normal(1, 1, 20_000))
    assert abs(found - 1) < 0.03
