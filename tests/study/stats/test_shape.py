import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.study import curves
from jaxlens.study.stats import shape, two_lines

CURVES = st.lists(st.floats(-20, 20), min_size=3, max_size=14).map(np.array)


def test_equal_steps_have_a_jump_share_of_one_over_their_number():
    assert math.isclose(shape.jump_share(np.linspace(5, 0, 13)), 1 / 12)
    assert shape.jump_share(np.array([5.0, 1.0, 1.0])) == 1.0
    assert math.isclose(shape.jump_ratio(np.array([9.0, 3.0, 2.0, 4.0, 1.0])), 3.0)


@given(CURVES, st.floats(0.1, 10), st.floats(-5, 5))
def test_shapes_ignore_the_unit_and_the_origin(curve, scale, origin):
    moved = curve * -scale + origin
    if np.abs(np.diff(curve)).sum() > 1e-3:
        assert math.isclose(shape.jump_share(moved), shape.jump_share(curve), abs_tol=1e-9)
    assert math.isclose(shape.prominence(curve + origin), shape.prominence(curve), abs_tol=1e-9)


@given(CURVES)
def test_prominence_is_by_hand_what_has_to_be_recovered(curve):
    rises = [curve[i] - max(curve[: i + 1].min(), curve[i:].min()) for i in range(len(curve))]
    assert shape.prominence(curve) == max(rises) >= 0
    assert shape.prominence(np.sort(curve)) == 0
    assert shape.prominence(np.sort(curve)[::-1]) == 0


def test_monotone_share_counts_flat_steps_as_along():
    curve = np.array([3.0, 2.0, 2.0, 2.5])
    assert math.isclose(shape.monotone_share(curve), 2 / 3)
    assert math.isclose(shape.monotone_share(curve, falling=False), 2 / 3)
    assert math.isnan(shape.monotone_share(np.array([1.0, math.nan, 0.0])))


def test_shapes_of_flat_or_missing_curves_are_nan():
    assert math.isnan(shape.jump_share(np.ones(5)))
    assert math.isnan(shape.jump_share(np.full(5, np.nan)))
    assert math.isnan(shape.jump_ratio(np.array([1.0, 0.0])))
    assert math.isnan(shape.jump_ratio(np.array([1.0, 0.0, 0.0, 0.0])))


def tally(curve, groups=40, seed=0):
    rng = np.random.default_rng(seed)
    counts = np.repeat(rng.integers(20, 200, (groups, 1)), len(curve), 1)
    mean = curve * np.exp(rng.normal(0, 0.1, (groups, 1)))
    return np.rint(mean * counts * 2**16).astype(np.int64), counts


def test_jump_is_that_of_the_pooled_mean_and_pairs_cancel():
    sums, counts = tally(np.array([5.0, 2.0, 1.0, 0.0]))
    found = curves.statistic(sums, counts, shape.jump_share)
    pooled = sums.sum(axis=0) / counts.sum(axis=0)
    assert math.isclose(found.value, shape.jump_share(pooled))
    same = curves.difference(sums, counts, [(sums, counts)] * 2, shape.jump_share)
    assert same.value == same.low == same.high == 0.0


DEPTHS = np.arange(1, 12) / 12


def planted(curve, seed, units=80, noise=0.5):
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 0.5, (units, 1))
    counts = rng.integers(5, 100, units)
    return curve + level + rng.normal(0, noise, (units, len(curve))), counts


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (8 * (DEPTHS - 0.5) ** 2, "u"),
        (-8 * (DEPTHS - 0.4) ** 2, "inverted u"),
        (np.log(DEPTHS), "none"),
        (np.zeros(11), "none"),
    ],
)
def test_two_lines_tell_a_u_from_a_bend(curve, expected):
    shapes = [
        two_lines.two_lines(curves, DEPTHS, counts).shape
        for curves, counts in (planted(curve, seed) for seed in range(50))
    ]
    # Both slopes must be significant, so false alarms are rarer than one in twenty.
    assert shapes.count(expected) >= 47


def test_slopes_are_those_of_an_interrupted_regression():
    from statsmodels import api

    curves, _ = planted(8 * (DEPTHS - 0.5) ** 2, 0)
    found = two_lines.two_lines(curves, DEPTHS, np.ones(80))
    x, unit = np.tile(DEPTHS, 80), np.repeat(np.arange(80), 11)
    for side, estimate in ((x <= found.depth, found.first), (x >= found.depth, found.second)):
        fit = api.OLS(curves.ravel()[side], api.add_constant(x[side])).fit(
            cov_type="cluster", cov_kwds={"groups": unit[side], "use_correction": False}
        )
        assert math.isclose(fit.params[1], estimate.value)
        assert math.isclose(fit.bse[1] * math.sqrt(80 / 79), estimate.se)


def test_robin_hood_gives_layers_to_the_weaker_line():
    # Flat in the middle; steep on the right, shallow on the left: the break moves right.
    curve = np.array([0.3, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
    found = two_lines.two_lines(planted(curve, 1, noise=0.05)[0], DEPTHS, np.ones(80))
    assert found.depth > 6 / 12
    turned = two_lines.two_lines(planted(curve[::-1], 1, noise=0.05)[0], DEPTHS, np.ones(80))
    assert turned.depth < 6 / 12


def test_two_lines_need_layers_and_units():
    few = two_lines.two_lines(np.ones((20, 3)), DEPTHS[:3], np.ones(20))
    assert few.shape == "not estimable" and few.first.note == "too few layers"
    curves, counts = planted(np.zeros(11), 0, units=9)
    assert two_lines.two_lines(curves, DEPTHS, counts).first.note == "too few clusters"
    curves[:] = np.nan
    assert two_lines.two_lines(curves, DEPTHS, counts).shape == "not estimable"
