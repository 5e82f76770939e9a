import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.study.stats import matched


def rows(seed=0, documents=40, n=120):
    rng = np.random.default_rng(seed)
    effect = rng.normal(0, 1, documents)
    document, others = rng.integers(0, documents, n), rng.integers(0, documents, (n, 4))
    controls = rng.normal(effect[others], 1)
    controls[rng.random((n, 4)) < 0.2] = np.nan
    controls[0] = np.nan
    return rng.normal(effect[document] + 1, 1), controls, document, others


def difference(*data):
    return matched.difference(matched.values(*data))


def cliff(*data):
    return matched.cliff(matched.values(*data))


def adjusted(copies, controls, mine, theirs, *cluster):
    return matched.adjusted_difference(matched.values(copies, controls, *cluster), mine, theirs)


def terms_of(copies, controls, document, others):
    """Value, weight and the two documents of every pair (copy, control), one after the other."""
    held = [i for i in range(len(copies)) if np.isfinite(controls[i]).any()]
    for i in held:
        found = [j for j in range(4) if np.isfinite(controls[i, j])]
        for j in found:
            weight = 1 / len(found) / len(held)
            yield copies[i] - controls[i, j], weight, frozenset((document[i], others[i, j]))


def test_variance_sums_the_products_of_terms_that_share_a_document():
    terms = list(terms_of(*(data := rows())))
    value = sum(w * gap for gap, w, _ in terms)
    moved = []
    for d in set(data[2]) | set(data[3].ravel()):
        left = [(w * gap, w) for gap, w, members in terms if d not in members]
        moved.append(sum(x for x, _ in left) / sum(w for _, w in left) - value)
    pairs = {}
    for gap, w, members in terms:
        if len(members) == 2:
            pairs[members] = pairs.get(members, 0) + w * (gap - value)
    found = difference(*data)
    assert math.isclose(found.value, value)
    both = sum(x * x for x in pairs.values())
    assert math.isclose(found.se, math.sqrt(sum(x * x for x in moved) - both))
    assert found.n == 119


def test_without_the_jackknife_it_is_the_sum_over_all_pairs_of_terms():
    terms = list(terms_of(*(data := rows(documents=4000, n=400))))
    value = sum(w * gap for gap, w, _ in terms)
    expected = sum(
        a * b * (x - value) * (y - value)
        for (x, a, p), (y, b, q) in itertools.product(terms, terms)
        if p & q
    )
    # With thousands of documents leaving one out changes no weight by more than half a percent.
    found = difference(*data)
    assert math.isclose(found.se, math.sqrt(expected), rel_tol=0.01)


def test_order_of_matches_and_names_of_documents_do_not_matter():
    copies, controls, document, others = rows()
    found = difference(copies, controls, document, others)
    order = np.random.default_rng(1).permutation(len(copies))
    names = np.random.default_rng(2).permutation(1000) << 50  # as hashes are
    moved = difference(copies[order], controls[order], names[document[order]], names[others[order]])
    assert math.isclose(found.value, moved.value) and math.isclose(found.se, moved.se)


def test_clusters_of_the_controls_are_not_forgotten():
    copies, controls, document, _ = rows(n=300, documents=300)
    common = np.random.default_rng(0).normal(0, 3, 20)
    others = np.random.default_rng(1).integers(0, 20, controls.shape)
    shifted = controls + common[others]
    free = difference(copies, shifted, document, np.arange(1200).reshape(300, 4))
    clustered = difference(copies, shifted, document, others + 300)
    assert clustered.se > 1.5 * free.se


def test_no_match_is_no_data_and_few_documents_have_no_interval():
    nothing = difference(np.ones(3), np.full((3, 4), np.nan), np.arange(3), np.zeros((3, 4), int))
    assert math.isnan(nothing.value)
    few = difference(*rows(documents=8))
    assert math.isfinite(few.value) and few.note == "too few clusters"


@st.composite
def discrete_matches(draw):
    """Depths in twelfths: few values and many ties, one to four controls each."""
    n = draw(st.integers(1, 12))
    copies = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    controls = draw(
        st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=n, max_size=n)
    )
    padded = np.full((n, 4), np.nan)
    for row, some in zip(padded, controls, strict=True):
        row[: len(some)] = some
    return np.array(copies, float), padded


@given(discrete_matches())
def test_delta_weighs_every_copy_alike(data):
    copies, controls = data
    own = np.arange(len(copies))
    found = cliff(copies, controls, own, np.zeros(controls.shape, int) + own[:, None] + 99)
    total = 0.0
    for x, row in itertools.product(copies, controls):
        some = row[np.isfinite(row)]
        total += np.sign(x - some).mean()
    assert math.isclose(found.value, total / len(copies) ** 2, abs_tol=1e-12)


def test_delta_does_not_count_a_copy_once_for_each_of_its_controls():
    """Copies with four controls are late, those with one are early: the weights decide."""
    copies = np.array([12.0, 12.0, 0.0, 0.0])
    controls = np.array([[6.0] * 4, [6.0] * 4, [6.0, *[np.nan] * 3], [6.0, *[np.nan] * 3]])
    found = cliff(copies, controls, np.arange(4), np.arange(16).reshape(4, 4))
    assert found.value == 0
    assert difference(copies, controls, np.arange(4), np.zeros((4, 4))).value == 0


def test_delta_turns_with_its_sign_and_stays_in_range():
    copies, controls, document, others = rows(n=200)
    found = cliff(copies, controls, document, others)
    turned = cliff(-copies, -controls, document, others)
    assert math.isclose(found.value, -turned.value) and math.isclose(found.low, -turned.high)
    apart = cliff(copies + 99, controls, document, others)
    assert apart.value == apart.high == 1 and 0.5 < apart.low < 1


def test_means_of_the_parts_add_up_to_the_difference():
    copies, controls, document, others = rows()
    used = np.isfinite(controls).any(axis=1)
    means = copies[used].mean(), np.nanmean(controls[used], axis=1).mean()
    found = difference(copies, controls, document, others)
    assert math.isclose(found.value, means[0] - means[1])


def test_adjustment_takes_out_what_covariates_explain_exactly():
    copies, controls, document, others = rows()
    rng = np.random.default_rng(5)
    mine, theirs = rng.normal(1, 1, (len(copies), 2)), rng.normal(0, 1, (*controls.shape, 2))
    slopes = np.array([0.7, -3.0])
    found = adjusted(
        2 + mine @ slopes, np.where(np.isfinite(controls), theirs @ slopes, np.nan), mine, theirs,
        document, others,
    )  # fmt: skip
    assert math.isclose(found.value, 2) and found.se < 1e-9


def test_adjustment_is_weighted_least_squares_of_the_gaps():
    copies, controls, document, others = rows()
    rng = np.random.default_rng(6)
    mine, theirs = rng.normal(0, 1, (len(copies), 1)), rng.normal(0, 1, (*controls.shape, 1))
    same = np.concatenate([mine, np.ones_like(mine)], 1)  # a column that never differs
    others_same = np.concatenate([theirs, np.ones_like(theirs)], 2)
    weighed, x, y = [], [], []
    for i in range(len(copies)):
        held = np.flatnonzero(np.isfinite(controls[i]))
        for j in held:
            weighed.append(1 / len(held))
            x.append([1.0, mine[i, 0] - theirs[i, j, 0]])
            y.append(copies[i] - controls[i, j])
    root = np.sqrt(weighed)
    expected = np.linalg.lstsq(np.array(x) * root[:, None], np.array(y) * root, rcond=None)[0]
    found = adjusted(copies, controls, same, others_same, document, others)
    assert math.isclose(found.value, expected[0], rel_tol=1e-9)


def test_without_covariates_the_adjusted_difference_is_the_difference():
    copies, controls, document, others = rows()
    none = np.zeros((len(copies), 0)), np.zeros((*controls.shape, 0))
    found = adjusted(copies, controls, *none, document, others)
    plain = difference(copies, controls, document, others)
    assert math.isclose(found.value, plain.value) and math.isclose(found.se, plain.se)


def test_balance_is_in_units_of_the_copies_own_spread():
    copies, controls = np.array([1.0, 3.0]), np.array([[0.0, 2.0], [2.0, np.nan]])
    cluster = np.arange(2), np.zeros((2, 2), int)
    balance = matched.standardized_difference(matched.values(copies, controls, *cluster))
    assert math.isclose(balance, 0.5 / math.sqrt(2))
    same = matched.values(np.ones(2), controls, *cluster)
    assert math.isnan(matched.standardized_difference(same))
