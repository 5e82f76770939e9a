"""The regressions within types, from tallies, against dummies and the stored rows themselves."""

import numpy as np
import pytest
from statsmodels import api

import jaxlens
from jaxlens.study import columns, inputs, sampled
from jaxlens.study.questions import sources
from jaxlens.study.stats import within_type

ROUNDED = 2e-3
"""Sums of products that were each rounded to 2**-16, over few rows."""


@pytest.fixture(scope="module")
def of(swept):
    return inputs.load(swept)


@pytest.fixture(scope="module")
def rows(swept):
    with jaxlens.open_run(swept) as run:
        names = ("token", "position", "prev_count", "prev_distance", "piece", "surprisal", "copied")
        found = {name: run[name][:] for name in names}
        found["ln_rank_input"] = np.log(run["rank_input"][:])
    kept = found["position"] > 0
    return {name: value[kept] for name, value in found.items()}


def design(rows, layer):
    """Columns in the order of ``columns.RANKED``, from their definitions."""
    piece = rows["piece"]
    return np.stack(
        [
            rows["ln_rank_input"][:, layer],
            rows["surprisal"],
            np.log(1 + rows["position"].astype(float)),
            rows["prev_count"] > 0,
            np.log(np.maximum(rows["prev_distance"], 1).astype(float)),
            np.log(1 + rows["prev_count"].astype(float)),
            *(piece == code for code in (1, 2, 3)),
        ],
        axis=1,
    ).astype(float)


def by_dummies(x, y, types):
    """The slope on the first column; columns that are constant within types are left out."""
    dummies = (types[:, None] == np.unique(types)).astype(float)
    varies = np.ptp(x - dummies @ np.linalg.lstsq(dummies, x)[0], axis=0) > 1e-6
    assert varies[0]
    return api.OLS(y, np.hstack([x[:, varies], dummies])).fit().params[0]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_slopes_are_those_of_the_rows_with_a_dummy_for_every_type(of, rows, layer):
    x, y = design(rows, layer), rows["copied"].astype(float)
    assert 0 < y.mean() < 1
    found = within_type.slope(*columns.of_copied(of, layer), columns.RANKED, "ln_rank_input")
    expected = by_dummies(x, y, rows["token"])
    assert found.value == pytest.approx(expected, rel=ROUNDED, abs=1e-6)
    ranks = within_type.slope(*columns.of_rank(of, layer), columns.NAMES, "surprisal")
    expected = by_dummies(x[:, 1:], x[:, 0], rows["token"])
    assert ranks.value == pytest.approx(expected, rel=ROUNDED, abs=1e-6)


def test_sampled_columns_are_those_of_the_rows(of, rows):
    _, sample = columns.of_copied(of, 1)
    assert len(sample.y) == len(rows["token"])  # few enough to be drawn all
    lines = sampled.Lines.of(of.tallies["reservoir"], of.n_layers)
    order = np.lexsort([lines["offset"], lines["document"]])
    np.testing.assert_allclose(sample.x[order], design(rows, 1), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(sample.y[order], rows["copied"])


def test_the_share_that_is_copied_is_that_of_the_rows(of, rows):
    share = next(line for line in sources.estimate(of) if line.estimator == "copied_share")
    assert share.estimate == pytest.approx(rows["copied"].mean(), abs=0)
    assert share.n == len(rows["copied"])
