import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.study.stats import slope

RARITY = np.arange(2.5, 18.5)
EDGES = np.linspace(0, 12.8, 65, dtype=np.float32)


def tally(steep, groups=40, seed=0):
    """Every token has exactly its expected ln rank."""
    counts = np.random.default_rng(seed).integers(50, 500, (groups, 2, 16))
    own = np.full(16, 3.0)
    location = np.stack([own, own + 0.5 + steep * RARITY])
    return np.rint(location * counts * 2**16).astype(np.int64), counts


@given(st.floats(-0.3, 0.3))
def test_slope_is_found_whatever_the_weights(steep):
    found = slope.mean_slope(*tally(steep), RARITY)
    assert math.isclose(found.value, steep, abs_tol=1e-5)
    assert found.high - found.low < 1e-4


def test_rarer_tokens_that_are_kept_better_give_a_positive_slope():
    assert slope.mean_slope(*tally(0.1), RARITY).value > 0


def test_slope_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=16), rng.random(16)
    expected = np.polyfit(RARITY, values, 1, w=np.sqrt(weight))[0]
    assert math.isclose(slope.weighted_slope(values, RARITY, weight), expected)
    both = slope.weighted_slope(np.stack([values, 2 * values]), RARITY, weight)
    assert np.allclose(both, [expected, 2 * expected])


def test_bins_that_are_missing_or_small_are_left_out():
    values = np.where(np.arange(16) % 2, RARITY * 0.1, np.nan)
    assert math.isclose(slope.weighted_slope(values, RARITY, np.ones(16)), 0.1)
    assert math.isnan(slope.weighted_slope(values, RARITY, np.arange(16) < 4))
    counts = np.stack([np.full(4, 100), np.array([49, 50, 400, 0])])
    assert slope.bin_weights(counts).tolist() == [0, math.sqrt(50), 10, 0]
    assert math.isnan(slope.mean_slope(*(x[..., :2] for x in tally(0.1)), RARITY[:2]).value)


def test_median_slope_follows_the_medians():
    rng = np.random.default_rng(1)
    histogram = np.zeros((40, 2, 16, 64), np.int64)
    for side, location in enumerate(([4.0] * 16, 4.0 + 0.1 * RARITY)):
        values = rng.normal(np.broadcast_to(location, (40, 300, 16)), 0.8)
        bins = np.clip(values / 0.2, 0, 63).astype(int)
        place = np.broadcast_to(np.arange(40)[:, None, None], bins.shape)
        np.add.at(histogram, (place, side, np.broadcast_to(np.arange(16), bins.shape), bins), 1)
    found = slope.median_slope(histogram, EDGES, RARITY)
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.02
    assert found.n == 40 * 300 * 16
