"""The regressions within types, from tallies, against dummies and the stored rows themselves."""

import numpy as np
import pytest
from statsmodels import api

import jaxlens
from jaxlens.study import columns, demeaned, inputs
from jaxlens.study.questions import sources
from jaxlens.study.stats import within_type
from jaxlens.tally import axes

ROUNDED = 2e-3
"""Sums of products that were each rounded to 2**-16, over few rows."""


@pytest.fixture(scope="module")
def of(swept):
    return inputs.load(swept)


@pytest.fixture(scope="module")
def rows(swept):
    with jaxlens.open_run(swept) as run:
        names = ("token", "position", "prev_count", "prev_distance", "piece", "surprisal")
        found = {name: run[name][:] for name in (*names, "copied", "document", "offset")}
        found["ln_rank_input"] = np.log(run["rank_input"][:])
        sizes = np.diff(run.corpus.documents.start)[found["document"]].astype(int)
        length = run.spec["plan"]["length"]
    begin = found["offset"].astype(int) - found["position"]
    found["room"] = np.minimum(begin + length, sizes) - found["offset"].astype(int) - 1
    kept = found["position"] > 0
    return {name: value[kept] for name, value in found.items()}


def hats(number):
    """A linear spline in log2, from its definition."""
    octave = np.clip(np.log2(np.maximum(number, 1)), 0, 11)
    return [np.maximum(0, 1 - np.abs(octave - knot)) for knot in range(1, 12)]


def design(rows, layer):
    """Columns in the order of ``columns.RANKED``, from their definitions."""
    piece = rows["piece"]
    return np.stack(
        [
            rows["ln_rank_input"][:, layer],
            rows["surprisal"],
            *hats(rows["position"].astype(int)),
            rows["prev_count"] > 0,
            np.log(np.maximum(rows["prev_distance"], 1).astype(float)),
            np.log(1 + rows["prev_count"].astype(float)),
            *(piece == code for code in (1, 2, 3)),
            *hats(rows["room"] + 1),
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
    assert 0 < y.mean() < 1 and x.shape[1] == len(columns.RANKED)
    found = within_type.slope(*columns.of_copied(of, layer), columns.RANKED, "ln_rank_input")
    expected = by_dummies(x, y, rows["token"])
    assert found.value == pytest.approx(expected, rel=ROUNDED, abs=1e-5)
    held = x[:, 1 : 1 + len(demeaned.NAMES)]
    ranks = within_type.slope(*columns.of_rank(of, layer), demeaned.NAMES, "surprisal")
    expected = by_dummies(held, x[:, 0], rows["token"])
    assert ranks.value == pytest.approx(expected, rel=ROUNDED, abs=1e-5)


def test_products_by_group_add_up_to_what_dummies_leave(of, rows):
    x = design(rows, 1)
    dummies = (rows["token"][:, None] == np.unique(rows["token"])).astype(float)
    left = x - dummies @ np.linalg.lstsq(dummies, x)[0]
    # Columns were rounded to 2**-16 before their products were summed.
    np.testing.assert_allclose(of.within.xtx.sum(0), left[:, 1:].T @ left[:, 1:], atol=0.02)
    np.testing.assert_allclose(of.within.xty.sum(0)[:, 1], left[:, 1:].T @ left[:, 0], atol=0.02)
    copied = rows["copied"].astype(float)
    np.testing.assert_allclose(of.within.xtc.sum(0), left[:, 1:].T @ copied, atol=0.02)
    np.testing.assert_allclose(of.within.ytc.sum(0)[1], left[:, 0] @ copied, atol=0.02)
    assert of.within.count.sum() == len(copied)


def test_regressors_hold_no_outcome():
    assert not {name for name in axes.REGRESSORS if name.startswith("logp")}


def test_the_share_that_is_copied_is_that_of_the_rows(of, rows):
    share = next(line for line in sources.estimate(of) if line.estimator == "copied_share")
    assert share.estimate == pytest.approx(rows["copied"].mean(), abs=0)
    assert share.n == len(rows["copied"])
