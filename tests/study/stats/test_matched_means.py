"""Means of matched copies and controls: values, and errors against sums over pairs."""

import math

import numpy as np
import pytest

from jaxlens.study.stats import bootstrap, matched, matched_means


def values(seed=0, documents=30, n=200):
    rng = np.random.default_rng(seed)
    effect = rng.normal(0, 1, documents)
    document, others = rng.integers(0, documents, n), rng.integers(0, documents, (n, 4))
    controls = effect[others] + rng.normal(0, 1, (n, 4))
    controls[:, 1:][rng.random((n, 3)) < 0.5] = np.nan
    return matched.values(effect[document] + rng.normal(0, 1, n), controls, document, others)


def test_means_weigh_every_match_alike():
    of = values()
    assert matched_means.of_copies(of).value == pytest.approx(of.copies.mean())
    assert matched_means.of_controls(of).value == pytest.approx(of.control_means.mean())
    gap = matched_means.of_copies(of).value - matched_means.of_controls(of).value
    assert gap == pytest.approx(matched.difference(of).value)


def test_the_error_of_copies_is_a_jackknife_over_their_documents():
    of = values()
    document = of.ours[np.searchsorted(np.nonzero(of.held)[0], np.arange(of.n))]
    moved = [
        of.copies[document != d].mean() - of.copies.mean() for d in np.unique(document).tolist()
    ]
    assert matched_means.of_copies(of).se == pytest.approx(math.sqrt(np.square(moved).sum()))


def test_the_error_of_controls_knows_their_own_documents():
    of = values()
    found = matched_means.of_controls(of)
    mean, y = found.value, of.controls[of.held]
    variance = 0.0
    for i, (a, b) in enumerate(zip(of.ours, of.theirs, strict=True)):
        shares = (of.ours == a) | (of.theirs == a) | (of.ours == b) | (of.theirs == b)
        variance += of.weight[i] * (y[i] - mean) * (of.weight * (y - mean))[shares].sum()
    # Leaving a document out moves the mean by a little more than its sum.
    assert found.se == pytest.approx(math.sqrt(variance), rel=0.1)
    assert found.se > 1.3 * bootstrap.clustered_mean(of.control_means, _first(of)).se


def _first(of):
    return of.ours[np.searchsorted(np.nonzero(of.held)[0], np.arange(of.n))]


def test_nothing_matched_has_no_mean():
    none = matched.values(*(np.zeros(shape) for shape in (0, (0, 4), 0, (0, 4))))
    for mean in (matched_means.of_copies, matched_means.of_controls):
        assert math.isnan(mean(none).value) and mean(none).note == bootstrap.EMPTY
