"""Within-type slopes from tallies: the value exact, the interval from sampled rows."""

import dataclasses

import numpy as np
import pytest
from statsmodels import api

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


def sums_of(token, x, y):
    size = token.max() + 1
    return within_type.Sums(
        xtx=x.T @ x,
        xty=x.T @ y,
        yty=float(y @ y),
        type_counts=np.bincount(token, minlength=size),
        type_x=np.stack([np.bincount(token, column, size) for column in x.T], axis=1),
        type_y=np.bincount(token, y, size),
    )


def test_a_sample_of_all_rows_gives_the_interval_of_the_rows_themselves():
    token, document, x, y = make()
    sample = within_type.Sample(token, document, x, y)
    found = within_type.slope(sums_of(token, x, y), sample, NAMES, "surprisal")
    dummies = (token[:, None] == np.unique(token)).astype(float)
    design = np.hstack([x[:, :2], dummies])  # the third column is one of the type
    oracle = api.OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": document})
    assert found.value == pytest.approx(oracle.params[0], rel=1e-9)
    # The small-sample corrections differ: a jackknife's here, a factor there.
    assert found.se == pytest.approx(oracle.bse[0], rel=0.05)


def test_a_part_of_the_rows_gives_that_interval_on_average():
    token, document, x, y = make()
    sums = sums_of(token, x, y)
    whole = within_type.slope(sums, within_type.Sample(token, document, x, y), NAMES, "surprisal")
    random, variances = np.random.default_rng(1), []
    for _ in range(60):
        kept = np.sort(random.permutation(len(y))[: len(y) // 3])
        part = within_type.Sample(token[kept], document[kept], x[kept], y[kept])
        found = within_type.slope(sums, part, NAMES, "surprisal")
        assert found.value == whole.value
        variances.append(found.se**2)
    # Sixty samples; the pairs' part is cut off at zero, which never happens here.
    assert np.mean(variances) == pytest.approx(whole.se**2, rel=0.08)


def test_what_does_not_vary_within_types_has_no_slope():
    token, document, x, y = make()
    sample = within_type.Sample(token, document, x, y)
    found = within_type.slope(sums_of(token, x, y), sample, NAMES, "constant_in_type")
    assert np.isnan(found.value) and found.note


def test_few_documents_or_rows_give_a_value_and_no_interval():
    token, document, x, y = make()
    sums = sums_of(token, x, y)
    few = within_type.Sample(token, document % 5, x, y)
    found = within_type.slope(sums, few, NAMES, "surprisal")
    assert np.isfinite(found.value) and np.isnan(found.low) and found.note == "too few clusters"
    short = within_type.Sample(*(getattr(few, f.name)[:50] for f in dataclasses.fields(few)))
    found = within_type.slope(sums, short, NAMES, "surprisal")
    assert np.isnan(found.low) and found.note == "too few sampled rows"
