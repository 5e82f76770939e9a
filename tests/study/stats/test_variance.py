import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from statsmodels import api

from jaxlens.study.stats import variance


def rows(seed, types=30, share=0.3, layers=2, most=40):
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.zipf(1.5, types), most)
    kind = np.repeat(np.arange(types), counts)
    level = rng.normal(0, math.sqrt(share), (types, layers))
    return kind, 6 + level[kind] + rng.normal(0, math.sqrt(1 - share), (len(kind), layers))


def sums(kind, y, types=None):
    types = types or kind.max() + 1
    found = np.zeros((2, types, y.shape[1]))
    np.add.at(found[0], kind, y)
    np.add.at(found[1], kind, y * y)
    return np.bincount(kind, minlength=types), found[0], found[1]


def test_omega_squared_is_that_of_the_analysis_of_variance():
    kind, y = rows(0)
    found = variance.omega_squared(*sums(kind, y))
    dummies = (kind[:, None] == np.unique(kind)).astype(float)
    for layer, estimate in enumerate(found):
        fit = api.OLS(y[:, layer], dummies).fit()
        between, within = fit.centered_tss - fit.ssr, fit.ssr
        unit = within / fit.df_resid
        expected = (between - (dummies.shape[1] - 1) * unit) / (between + within + unit)
        assert math.isclose(estimate.value, expected, rel_tol=1e-9)
        assert estimate.n == len(kind) and estimate.clusters == len(set(kind))


def test_jackknife_is_the_one_that_leaves_types_out_one_by_one():
    kind, y = rows(1, layers=1)
    found = variance.omega_squared(*sums(kind, y))[0]
    left = [
        variance.omega_squared(*sums(kind[kind != t], y[kind != t]))[0].value for t in set(kind)
    ]
    k = len(left)
    assert math.isclose(found.se, math.sqrt((k - 1) * np.var(left)), rel_tol=1e-9)


@given(st.integers(0, 1000), st.floats(0.1, 5), st.floats(-1000, 1000))
def test_share_ignores_unit_origin_and_names_of_types(seed, scale, origin):
    kind, y = rows(seed, layers=1)
    plain = variance.omega_squared(*sums(kind, y))[0].value
    name = np.random.default_rng(seed).permutation(50)[kind]  # and twenty that never occur
    moved = variance.omega_squared(*sums(name, y * scale + origin, 50))[0].value
    assert math.isclose(plain, moved, abs_tol=1e-6)


def test_intervals_cover_the_share_of_a_random_model():
    covered = []
    for seed in range(200):
        kind, y = rows(seed, types=80, most=3, layers=1)
        found = variance.omega_squared(*sums(kind, y))[0]
        covered.append(found.low <= 0.3 <= found.high)
    assert np.mean(covered) >= 0.91


def test_without_repeats_or_variance_there_is_no_share():
    once = np.ones(20), np.arange(20.0)[:, None], np.arange(20.0)[:, None] ** 2
    assert math.isnan(variance.omega_squared(*once)[0].value)
    flat = np.full(20, 3), np.full((20, 1), 15.0), np.full((20, 1), 75.0)
    assert math.isnan(variance.omega_squared(*flat)[0].value)
    nothing = np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2))
    assert [e.note for e in variance.omega_squared(*nothing)] == ["no data"] * 2
