"""Intervals of shares: the right numbers, and simulations of what they cover."""

import numpy as np
import pytest

from jaxlens.study.stats import proportions


def test_wilsons_interval_is_that_of_the_literature():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I.
    for (successes, n), ends in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        share, *found = proportions.wilson(successes, n)
        assert share == successes / n
        np.testing.assert_allclose(found, ends, atol=5e-5)


def test_it_is_that_of_scipy_and_stays_inside():
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 7, 1000):
        for successes in {0, 1, n // 2, n}:
            share, low, high = proportions.wilson(successes, n)
            theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
            np.testing.assert_allclose((low, high), theirs, atol=1e-12)
            assert 0 <= low <= share <= high <= 1
    assert np.isnan(proportions.wilson(0, 0)).all()


def drawn(random, share, clusters, within):
    """Clusters of 1 to 15 prompts whose answers are correlated: a beta-binomial draw."""
    cluster = np.repeat(np.arange(clusters), random.integers(1, 16, clusters))
    each = np.full(clusters, share)
    if within:
        each = random.beta(
            share * (1 - within) / within, (1 - share) * (1 - within) / within, clusters
        )
    return random.random(len(cluster)) < each[cluster], cluster


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
@pytest.mark.parametrize("clusters", [12, 40])
@pytest.mark.parametrize("within", [0.0, 0.1, 0.4, 0.7])
def test_intervals_by_cluster_cover_where_those_of_independent_prompts_do_not(
    share, clusters, within
):
    random = np.random.default_rng(int(1000 * share) + clusters + int(10 * within))
    covered = np.zeros(2)
    for _ in range(400):
        true, cluster = drawn(random, share, clusters, within)
        both = (proportions.clustered(true, cluster), proportions.wilson(true.sum(), len(true)))
        covered += [low <= share <= high for _, low, high in both]
    together, alone = covered / 400
    assert together >= 0.915  # 0.94 less two standard errors of 400 draws
    if within >= 0.4 and share > 0.05:
        assert alone < 0.8


def test_one_prompt_a_cluster_is_hardly_wider_than_independent_ones():
    true = np.random.default_rng(0).random(400) < 0.3
    share, low, high = proportions.clustered(true, np.arange(400))
    alone = proportions.wilson(true.sum(), 400)
    assert share == alone[0]
    np.testing.assert_allclose((low, high), alone[1:], atol=2e-3)


def test_where_all_agree_each_cluster_counts_once():
    true, cluster = np.zeros(200, bool), np.repeat(np.arange(20), 10)
    _, low, high = proportions.clustered(true, cluster)
    assert low == 0 and high > proportions.wilson(0, 20)[2] > proportions.wilson(0, 200)[2]


def test_few_clusters_have_no_interval():
    share, low, high = proportions.clustered(np.array([True, False] * 9), np.arange(18) // 2)
    assert share == 0.5 and np.isnan([low, high]).all()
    assert np.isnan(proportions.clustered(np.zeros(0, bool), np.zeros(0, int))).all()
