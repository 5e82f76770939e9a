"""Shares by group of documents: exact sums, ends within 0 and 1, and coverage of planted truths."""

import math

import numpy as np
import pytest

from jaxlens.study.stats import bootstrap, shares


def drawn(rng, share, documents, correlation, spread, tied):
    """Sizes and chances of documents; where tied, large documents have other chances."""
    deviate = rng.normal(0, 1, documents)
    sizes = np.rint(np.exp(5 + spread * deviate)).astype(int) + 20
    k = (1 - correlation) / correlation
    of_document = np.clip(rng.beta(share * k, (1 - share) * k, documents), 1e-9, 1 - 1e-9)
    logit = np.log(of_document / (1 - of_document)) + tied * deviate
    return sizes, 1 / (1 + np.exp(-logit))


CASES = [
    (documents, share, correlation, spread, tied)
    for documents in (40, 200)
    for share in (0.02, 0.3, 0.9)
    for correlation in (0.02, 0.1)
    for spread, tied in ((0.3, 0.0), (1.0, 0.0), (0.7, 0.3))
]


def coverage(case, replicas, seed=0):
    documents, share, *rest = case
    rng = np.random.default_rng(seed)
    sizes, chances = drawn(rng, share, 1_000_000, *rest)
    truth = float(sizes @ chances / sizes.sum())
    covered = 0
    for _ in range(replicas):
        sizes, chances = drawn(rng, share, documents, *rest)
        group = rng.integers(0, 256, documents)
        hits = np.bincount(group, rng.binomial(sizes, chances), 256)
        found = shares.of_groups(hits, np.bincount(group, sizes, 256))
        covered += found.low <= truth <= found.high
    return covered / replicas


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_it_covers_quickly(case):
    # Of 200 replicas a coverage of 95 % is below 90 % once in a thousand times.
    assert coverage(case, 200) >= 0.90


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_covers(case):
    # Near 0 and 1 few documents hold any hit, and the interval errs on the wide side.
    assert coverage(case, 1_000, seed=1) >= 0.93


def test_value_and_standard_error_are_those_of_a_ratio():
    rng = np.random.default_rng(1)
    sizes = rng.integers(50, 300, 256)
    hits = rng.binomial(sizes, rng.beta(4, 6, 256))
    found = shares.of_groups(hits, sizes)
    assert math.isclose(found.value, hits.sum() / sizes.sum(), rel_tol=1e-12)
    assert (found.n, found.clusters) == (sizes.sum(), 256)
    weight = bootstrap.weights(256, 4_000)
    assert math.isclose(found.se, (weight @ hits / (weight @ sizes)).std(), rel_tol=0.05)


def test_a_share_without_exception_has_an_interval_of_some_width():
    counts = np.full(30, 400)
    found = shares.of_groups(counts, counts)
    assert (found.value, found.high, found.se) == (1.0, 1.0, 0.0)
    # 12,000 positions of which 1 + 25 * 3 / 30 count as one; t with 29 degrees of freedom.
    assert found.low == pytest.approx(1 / (1 + 2.045**2 / (12_000 / 3.5)), abs=1e-5)
    none = shares.of_groups(np.zeros(30), counts)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - found.low)


@pytest.mark.parametrize("miss", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("varies", [0.5, 2.0])
def test_shares_near_1_cover(miss, varies):
    """Of rates that vary by half their mean, or twice: most replicas hold few misses or none."""
    rng, covered, shape = np.random.default_rng(5), 0, 1 / varies**2
    for _ in range(300):
        sizes = np.rint(np.exp(6 + 0.8 * rng.normal(0, 1, 40))).astype(int)
        rates = np.minimum(rng.gamma(shape, miss / shape, 40), 1)
        misses = rng.binomial(sizes, rates)
        found = shares.of_groups(sizes - misses, sizes)
        covered += found.low <= 1 - miss <= found.high
    assert covered / 300 >= 0.91


def test_nothing_and_few_groups_have_no_interval():
    assert shares.of_groups(np.zeros(256), np.zeros(256)) == bootstrap.missing(bootstrap.EMPTY)
    few = shares.of_groups(np.full(9, 3), np.full(9, 10))
    assert few.value == pytest.approx(0.3) and math.isnan(few.low)
    assert few.note == bootstrap.TOO_FEW
