"""Differences of two shares of the same positions: exact values, and coverage of planted truths."""

import math

import numpy as np
import pytest

from jaxlens.study.stats import bootstrap, paired_shares, shares

# Documents; the two shares; correlation within documents; how much one document says of both.
CASES = [
    (documents, pair, correlation, common)
    for documents in (40, 200)
    for pair in ((0.95, 0.02), (0.99, 0.97), (0.6, 0.5), (0.05, 0.04))
    for correlation in (0.01, 0.1)
    for common in (0.0, 0.8)
]


def drawn(rng, documents, pair, correlation, common):
    """Hits of both and sizes, by document; sizes have a heavy tail."""
    sizes = np.rint(np.exp(5 + 0.7 * rng.normal(size=documents))).astype(int) + 20
    k = (1 - correlation) / correlation
    # The shares of a document, by the quantile that it has among all documents.
    shared = rng.uniform(size=documents)
    quantiles = [
        np.where(rng.uniform(size=documents) < common, shared, rng.uniform(size=documents))
        for _ in pair
    ]
    from scipy import stats

    chances = [
        stats.beta.ppf(q, share * k, (1 - share) * k)
        for q, share in zip(quantiles, pair, strict=True)
    ]
    return [rng.binomial(sizes, chance) for chance in chances], sizes


def coverage(case, replicas, seed=0):
    documents, pair, *rest = case
    rng = np.random.default_rng(seed)
    truth, covered = pair[0] - pair[1], 0
    for _ in range(replicas):
        hits, sizes = drawn(rng, documents, pair, *rest)
        group = rng.integers(0, 256, documents)
        first, second, counts = (np.bincount(group, part, 256) for part in (*hits, sizes))
        found = paired_shares.difference(first, second, counts)
        covered += found.low <= truth <= found.high
    return covered / replicas


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_it_covers_quickly(case):
    # Of 200 replicas a coverage of 95 % is below 90 % once in a thousand times.
    assert coverage(case, 200) >= 0.90


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_covers(case):
    # Near 0 and 1 few documents hold any exception, and the interval errs on the wide side.
    assert coverage(case, 1_000, seed=1) >= 0.93


def test_value_and_standard_error_are_those_of_paired_ratios():
    rng = np.random.default_rng(1)
    hits, sizes = drawn(rng, 256, (0.6, 0.5), 0.1, 0.9)
    found = paired_shares.difference(*hits, sizes)
    first, second = hits
    assert math.isclose(found.value, (first - second).sum() / sizes.sum(), rel_tol=1e-12)
    weight = bootstrap.weights(256, 4_000)
    replicas = (weight @ (first - second)) / (weight @ sizes)
    assert math.isclose(found.se, replicas.std(), rel_tol=0.05)
    # Far from 0 and 1 it is the interval that the standard error gives.
    assert (found.high - found.low) / 2 / found.se == pytest.approx(1.97, rel=0.06)


def test_it_says_the_opposite_of_the_opposite():
    rng = np.random.default_rng(2)
    hits, sizes = drawn(rng, 60, (0.97, 0.3), 0.05, 0.5)
    one, other = (paired_shares.difference(*pair, sizes) for pair in (hits, hits[::-1]))
    assert one.value == pytest.approx(-other.value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_without_exceptions_there_is_width():
    counts = np.full(30, 400)
    found = paired_shares.difference(counts, counts, counts)
    width = 1 - shares.of_groups(counts, counts).low
    assert found.value == 0.0 and found.high == -found.low == pytest.approx(width)
    one = paired_shares.difference(counts, np.zeros(30), counts)
    assert one.value == 1.0 and one.low == pytest.approx(1 - math.sqrt(2) * width)


def test_nothing_and_few_groups_have_no_interval():
    zeros = np.zeros(256)
    assert paired_shares.difference(zeros, zeros, zeros) == bootstrap.missing(bootstrap.EMPTY)
    few = paired_shares.difference(np.full(9, 3), np.full(9, 1), np.full(9, 10))
    assert few.value == pytest.approx(0.2) and math.isnan(few.low)
    assert few.note == bootstrap.TOO_FEW
