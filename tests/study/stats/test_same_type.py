"""Slopes over token types: value and error against statsmodels, and what has no number."""

import numpy as np
import pytest
from statsmodels import api
from study import planted_types

from jaxlens.study.stats import bootstrap, same_type


def sides(rng, types=300, positions=40):
    rarity = np.sort(rng.uniform(3, 12, types))
    made = []
    for level in (0.0, 1.0 + 0.2 * (rarity - 8)):
        y = rng.normal(4 + level, 1, (positions, types)) + rng.normal(0, 0.3, types)
        made.append(same_type.Side(np.full(types, positions), y.sum(0), np.square(y).sum(0)))
    return rarity, made


def spread(rng, groups=256, noise=0.0):
    """Groups that all have the slope of the whole, but for noise."""
    one = np.tile([1.0, 8.0, 70.0], (2, groups, 1))
    outcome = np.stack([np.tile([4.0, 32.0], (groups, 1)), np.tile([5.0, 41.2], (groups, 1))])
    outcome = outcome + noise * rng.normal(0, 1, outcome.shape)
    return same_type.Groups(one, outcome, np.full(groups, 100))


def test_value_and_error_over_types_are_those_of_a_regression():
    rng = np.random.default_rng(0)
    rarity, (own, foreign) = sides(rng)
    weight = rng.uniform(0.5, 2, len(rarity))
    found = same_type.slope(own, foreign, rarity, weight, spread(rng))
    y = foreign.total / foreign.count - own.total / own.count
    oracle = api.WLS(y, api.add_constant(rarity), weights=weight).fit(cov_type="HC3")
    assert found.value == pytest.approx(oracle.params[1], rel=1e-9)
    # Documents add nothing here; a jackknife's factor is (m - 1) / m.
    assert found.se == pytest.approx(oracle.bse[1], rel=0.02)


def test_documents_that_disagree_add_to_the_error():
    rng = np.random.default_rng(0)
    rarity, (own, foreign) = sides(rng)
    weight = np.ones(len(rarity))
    alike, apart = (
        same_type.slope(own, foreign, rarity, weight, spread(rng, noise=noise)).se
        for noise in (0.0, 20.0)
    )
    assert apart > 1.5 * alike


def test_types_without_positions_on_a_side_are_left_out():
    rng = np.random.default_rng(1)
    rarity, (own, foreign) = sides(rng)
    few = foreign.count.copy()
    few[:10] = 2
    found = same_type.slope(own, foreign._replace(count=few), rarity, np.ones(300), spread(rng))
    rest = [same_type.Side(*(part[10:] for part in side)) for side in (own, foreign)]
    assert found.value == same_type.slope(*rest, rarity[10:], np.ones(290), spread(rng)).value


def test_few_types_have_no_number_and_few_documents_no_interval():
    rng = np.random.default_rng(2)
    rarity, (own, foreign) = sides(rng)
    weight = (np.arange(300) < same_type.MIN_TYPES - 1).astype(float)
    none = same_type.slope(own, foreign, rarity, weight, spread(rng))
    assert np.isnan(none.value) and none.note == same_type.FEW_TYPES
    few = same_type.slope(own, foreign, rarity, np.ones(300), spread(rng, groups=8))
    assert np.isfinite(few.value) and np.isnan(few.low) and few.note == bootstrap.TOO_FEW


def test_a_planted_slope_is_found_without_bias():
    found = [
        planted_types.replica(np.random.default_rng(i), 100, planted_types.CASES["effect"])
        for i in range(12)
    ]
    values = np.array([one.value for one in found])
    assert abs(values.mean() - 0.1) < 4 * values.std(ddof=1) / np.sqrt(len(values))
