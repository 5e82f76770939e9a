import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels import api

from jaxlens.study.stats import least_squares, regression

NAMES = ("surprisal", "position", "count")
DIGITS = 1e-7
"""Normal equations square the condition number, here some hundreds."""


def rows(seed=0, n=600, types=25, groups=30):
    rng = np.random.default_rng(seed)
    kind = np.minimum(rng.zipf(1.5, n), types) - 1
    group = rng.integers(0, groups, n)
    x = rng.normal(5, 1, (n, 3)) + 0.5 * rng.normal(size=(groups, 3))[group]
    y = x @ [0.3, -0.2, 0.0] + rng.normal(size=types)[kind] + rng.normal(size=groups)[group]
    return kind, group, x, y + rng.normal(size=n)


def dummies(kind):
    return (kind[:, None] == np.unique(kind)).astype(float)


def type_sums(kind, x, y):
    n = np.bincount(kind)
    summed = np.stack([np.bincount(kind, c) for c in x.T], axis=1)
    return n, summed, np.bincount(kind, y)


def products(group, x, y):
    """X'X, X'y and rows of each group."""
    parts = [group == g for g in np.unique(group)]
    xtx, xty = (np.stack([x[p].T @ other[p] for p in parts]) for other in (x, y))
    return xtx, xty, np.array([p.sum() for p in parts])


def test_within_slopes_are_those_of_a_dummy_for_every_type():
    kind, _, x, y = rows()
    oracle = api.OLS(y, np.hstack([x, dummies(kind)])).fit()
    found = regression.within(x.T @ x, x.T @ y, y @ y, *type_sums(kind, x, y), NAMES)
    assert np.allclose(found.values, oracle.params[:3], rtol=DIGITS)
    assert np.allclose(found.se, oracle.bse[:3], rtol=DIGITS)
    assert found.df[0] == oracle.df_resid


def test_clustered_errors_are_those_of_statsmodels():
    _, group, x, y = rows()
    x = api.add_constant(x)
    oracle = api.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": group})
    found = regression.clustered(*products(group, x, y), ("one", *NAMES))
    assert np.allclose(found.values, oracle.params, rtol=DIGITS)
    assert np.allclose(found.se, oracle.bse, rtol=DIGITS)
    assert found.clusters == 30
    assert (found.df < 29).all()


def test_effective_clusters_are_those_of_the_partialled_column_by_hand():
    _, group, x, y = rows()
    left = api.OLS(x[:, 0], api.add_constant(x[:, 1:])).fit().resid
    share = np.bincount(group, left**2)
    design = np.hstack([x, np.ones((len(x), 1))])
    found = regression.clustered(*products(group, design, y), (*NAMES, "one"))
    residual = api.OLS(y, design).fit().resid
    squares = np.bincount(group, left * residual) ** 2
    most = share.sum() ** 2 / (share**2).sum() - 1
    deciding = squares.sum() ** 2 / (squares**2).sum()
    assert math.isclose(found.df[0], min(most, deciding), rel_tol=1e-6)


@given(st.integers(0, 100))
def test_order_and_names_of_types_do_not_matter(seed):
    kind, _, x, y = rows(seed, n=200)
    n, summed, of_y = type_sums(kind, x, y)
    found = regression.within(x.T @ x, x.T @ y, y @ y, n, summed, of_y, NAMES)
    p = np.random.default_rng(seed).permutation(len(n))
    moved = regression.within(x.T @ x, x.T @ y, y @ y, n[p], summed[p], of_y[p], NAMES)
    assert np.allclose(found.values, moved.values) and np.allclose(found.se, moved.se)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_constant_and_collinear_columns_are_dropped_and_named(scale):
    kind, group, x, y = rows()
    more = np.stack([x[:, 0] - 2 * x[:, 1], kind * 1.0, np.ones(len(y))], axis=1) * scale
    names = (*NAMES, "sum", "of the type", "constant")
    wide = np.hstack([x, more])
    found = regression.within(wide.T @ wide, wide.T @ y, y @ y, *type_sums(kind, wide, y), names)
    assert found.dropped == names[3:]
    plain = regression.within(x.T @ x, x.T @ y, y @ y, *type_sums(kind, x, y), NAMES)
    assert np.allclose(found.values[:3], plain.values) and np.isnan(found.values[3:]).all()
    dropped = least_squares.coefficient(found, "sum")
    assert math.isnan(dropped.value) and dropped.note == "constant or collinear"
    pooled = regression.clustered(*products(group, wide[:, :4], y), names[:4])
    assert pooled.dropped == ("sum",)


def test_few_clusters_or_observations_have_no_interval():
    _, group, x, y = rows(groups=9)
    found = regression.clustered(*products(group, x, y), NAMES)
    assert np.isfinite(found.values).all() and np.isnan(found.low).all()
    assert least_squares.coefficient(found, "count").note == "too few clusters"
    with pytest.raises(ValueError, match="not in tuple"):
        least_squares.coefficient(found, "c")
    ones = np.ones(2)
    few = regression.within(np.eye(2), ones, 2.0, ones, np.zeros((2, 2)), 0 * ones, ("a", "b"))
    assert np.isnan(few.se).all() and few.note == "too few observations"
    zero = np.zeros(1)
    nothing = regression.within(zero[None], zero, 0.0, zero + 5, zero[None], zero, ("a",))
    assert nothing.dropped == ("a",) and math.isnan(nothing.values[0])
