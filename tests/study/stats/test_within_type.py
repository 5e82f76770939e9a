"""Within-type slopes from sums: the value that of dummies, the interval that of clusters."""

import numpy as np
import pytest
from statsmodels import api
from study import planted_within

from jaxlens.study.stats import within_type

NAMES = ("surprisal", "position", "constant_in_type")


def make(seed=0, rows=6_000, types=40, documents=60):
    random = np.random.default_rng(seed)
    document = np.sort(random.integers(0, documents, rows))
    token = random.integers(0, types, rows)
    x = np.stack(
        [
            random.normal(0, 1, rows) + random.normal(0, 1, documents)[document],
            random.normal(0, 1, rows),
            random.normal(0, 1, types)[token],
        ],
        axis=1,
    )
    y = 0.3 * x[:, 0] + x[:, 2] + random.normal(0, 1, rows) * (1 + (document % 3))
    y = y + random.normal(0, 0.5, documents)[document]
    return token, document, x, y


def test_value_and_error_are_those_of_dummies_and_clusters():
    token, document, x, y = make()
    found = planted_within.estimate(token, document, x, y, NAMES)
    dummies = (token[:, None] == np.unique(token)).astype(float)
    design = np.hstack([x[:, :2], dummies])  # the third column is one of the type
    oracle = api.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": document})
    assert found.value == pytest.approx(oracle.params[0], rel=1e-9)
    # The small-sample corrections differ: a jackknife's here, a factor there.
    assert found.se == pytest.approx(oracle.bse[0], rel=0.05)
    assert (found.clusters, found.n) == (60, len(y))


def test_what_does_not_vary_within_types_has_no_slope():
    token, document, x, y = make()
    names = ("constant_in_type", "position", "surprisal")
    found = planted_within.estimate(token, document, x[:, ::-1], y, names)
    assert np.isnan(found.value) and found.note


def test_without_rows_there_is_a_value_and_no_interval():
    token, document, x, y = make()
    with_rows = planted_within.estimate(token, document, x, y, NAMES)
    size = token.max() + 1
    sums = within_type.Sums(
        xtx=x.T @ x,
        xty=x.T @ y,
        yty=float(y @ y),
        type_counts=np.bincount(token, minlength=size),
        type_x=np.stack([np.bincount(token, column, size) for column in x.T], axis=1),
        type_y=np.bincount(token, y, size),
    )
    found = within_type.slope(sums, None, NAMES, "surprisal")
    assert found.value == with_rows.value
    assert np.isnan(found.low) and found.note == within_type.NO_ROWS


def test_few_documents_give_a_value_and_no_interval():
    token, document, x, y = make()
    found = planted_within.estimate(token, document % 5, x, y, NAMES)
    assert np.isfinite(found.value) and np.isnan(found.low) and found.note == "too few clusters"


def test_a_column_of_one_group_alone_leaves_no_infinite_error():
    token, document, x, y = make()
    x[:, 1] *= document == 7
    found = planted_within.estimate(token, document, x, y, NAMES)
    assert np.isfinite(found.se) and found.se < 1
