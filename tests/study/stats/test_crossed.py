"""The crossed model against dense algebra, and where it gives no number."""

import dataclasses

import numpy as np
import pytest
from study import planted_crossed

from jaxlens.study.stats import bootstrap, components, crossed

CASE = planted_crossed.Case(slope=0.1, bend=0.03, vocab=150, positions=700)


def drawn(case=CASE, documents=30, seed=0):
    rows, ln_rank = planted_crossed.draw(np.random.default_rng(seed), documents, case)
    return rows, components.Design.of(rows.token, rows.group), ln_rank


def covariance(rows, variances):
    """Of all observations, entry by entry."""
    token, group = rows.token.reshape(-1), np.tile(rows.group, 2)
    side = np.repeat([0, 1], rows.group.size)
    of_types = variances.types[np.ix_(side, side)] * (token[:, None] == token)
    of_groups = variances.groups[np.ix_(side, side)] * (group[:, None] == group)
    return of_types + of_groups + np.diag(variances.rest[side])


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_weights_are_those_of_the_inverse_of_the_covariance(rank):
    rows, design, _ = drawn()
    root = np.array([[0.9, 0.3], [-0.2, 0.7]])[:, :rank]
    variances = components.Variances(root @ root.T, 0.3 * root @ root.T, np.array([1.3, 2.1]))
    x = crossed.columns(rows)
    expected = np.linalg.solve(covariance(rows, variances), x)
    np.testing.assert_allclose(components.weigh(design, variances, x), expected, atol=1e-10)


def test_variances_are_means_over_pairs_of_residuals():
    rows, design, ln_rank = drawn(dataclasses.replace(CASE, positions=300))
    x, y = crossed.columns(rows), -ln_rank.reshape(-1)
    found = components.estimate(design, x, y)
    token, group = rows.token.reshape(-1), np.tile(rows.group, 2)
    side = np.repeat([0, 1], rows.group.size)
    mates = (token[:, None] == token) & (side[:, None] == side)
    weight = 1 / (1 + mates.sum(1))
    root = np.sqrt(weight)
    fitted = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    left = y - x @ fitted
    in_group = ((group[:, None] == group) & (side[:, None] == side)).sum(1)
    same_type, same_group = token[:, None] == token, group[:, None] == group
    parts = {
        "types": (same_type & ~same_group, weight),
        "groups": (same_group & ~same_type, 1 / np.sqrt(in_group)),
    }
    for name, (pairs, each) in parts.items():
        times = np.outer(each, each) * pairs
        mean = np.zeros((2, 2))
        for a in (0, 1):
            for b in (0, 1):
                here = np.ix_(side == a, side == b)
                mean[a, b] = (times * np.outer(left, left))[here].sum() / times[here].sum()
        assert np.linalg.eigvalsh(mean).min() > 0 or name == "groups"
        values, vectors = np.linalg.eigh(mean)
        expected = vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-12)
    for a in (0, 1):
        square = np.average(left[side == a] ** 2, weights=weight[side == a])
        assert found.rest[a] == pytest.approx(square - found.types[a, a] - found.groups[a, a])


def test_variances_find_what_was_planted(monkeypatch):
    monkeypatch.setattr(planted_crossed, "GROUPS", 10**9)  # each document has one of its own
    case = planted_crossed.Case(
        of_types=1.0, of_documents=0.0, common=0.8, of_cells=0.0, tail=0.0, positions=20_000
    )
    rows, design, ln_rank = drawn(case, documents=200)
    found = components.estimate(design, crossed.columns(rows), -ln_rank.reshape(-1))
    # Of a type: a level on both sides, and an excess where it was read.
    np.testing.assert_allclose(found.types, [[2.0, 1.0], [1.0, 1.0]], rtol=0.2)
    np.testing.assert_allclose(found.groups, [[0.73, 0.09], [0.09, 0.09]], atol=0.2)
    # What was read scatters by 1.2 nat at the mean rarity and by 1.6 where it is 4 nat rarer.
    assert 1.44 < found.rest[0] < 2.56
    np.testing.assert_allclose(found.rest[1], 2.56, rtol=0.2)


def test_coefficients_are_those_of_dense_least_squares():
    rows, design, ln_rank = drawn()
    x, y = crossed.columns(rows), -ln_rank.reshape(-1)
    inverse = np.linalg.inv(covariance(rows, components.estimate(design, x, y)))
    expected = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y)
    found = crossed.fit(rows, design, ln_rank)
    np.testing.assert_allclose(found.value, expected[4:6], rtol=1e-8)
    # What observations add to the estimate adds up to nothing, what they know of it to all.
    np.testing.assert_allclose(found.cells.by.sum(0), 0, atol=1e-10)
    for part in (found.types, found.groups):
        np.testing.assert_allclose(part.share.sum(0), 1, rtol=0.05)


def test_the_order_of_positions_and_the_names_of_types_do_not_matter():
    rows, design, ln_rank = drawn()
    order = np.random.default_rng(1).permutation(rows.group.size)
    moved = crossed.Rows(
        rows.token[:, order] * 7 + 3, rows.rarity[:, order], rows.level[order], rows.group[order]
    )
    one = crossed.fit(rows, design, ln_rank)
    two = crossed.fit(moved, components.Design.of(moved.token, moved.group), ln_rank[:, order])
    for coefficient in (0, 1):
        first, second = (crossed.estimate(found, coefficient) for found in (one, two))
        np.testing.assert_allclose(
            [second.value, second.se, second.df], [first.value, first.se, first.df], rtol=1e-9
        )


def test_a_fit_less_itself_is_nothing_and_less_another_is_the_difference():
    rows, design, ln_rank = drawn()
    one = crossed.fit(rows, design, ln_rank)
    other = crossed.fit(rows, design, ln_rank + 0.05 * rows.rarity * [[1], [0]])
    same = crossed.difference(one, [one], 0)
    assert (same.value, same.se) == (0, 0)
    apart = crossed.difference(one, [other, other], 0)
    assert apart.value == pytest.approx(one.value[0] - other.value[0])
    # They share all that scatters, so the difference is better known than either.
    assert apart.se < 0.05 * crossed.estimate(one, 0).se


def test_few_types_have_no_number_and_few_groups_no_interval():
    few = drawn(dataclasses.replace(CASE, vocab=crossed.MIN_TYPES - 1))
    found = crossed.estimate(crossed.fit(*few), 0)
    assert np.isnan(found.value) and found.note == crossed.FEW_TYPES
    assert found.clusters and found.n == few[0].group.size
    found = crossed.estimate(crossed.fit(*drawn(documents=8)), 1)
    assert np.isfinite(found.value) and np.isnan(found.low) and found.note == bootstrap.TOO_FEW
    rows, design, ln_rank = drawn()
    flat = crossed.estimate(crossed.fit(rows, design, np.zeros_like(ln_rank)), 0)
    assert np.isnan(flat.value) and flat.note == crossed.ALIKE
    alike = rows._replace(rarity=np.sign(rows.rarity))
    assert crossed.estimate(crossed.fit(alike, design, ln_rank), 0).note == crossed.ALIKE


def test_a_few_types_that_decide_alone_leave_no_interval():
    rows, design, ln_rank = drawn()
    different = np.zeros(CASE.vocab)
    different[:3] = -3, 3, 1
    found = crossed.fit(rows._replace(rarity=different[rows.token]), design, ln_rank)
    for coefficient in (0, 1):
        alone = crossed.estimate(found, coefficient)
        assert np.isfinite(alone.value) and alone.note == crossed.FEW_EFFECTIVE_TYPES
