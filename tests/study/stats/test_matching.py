import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.study.stats import matching

SEEDS = st.integers(0, 2**32 - 1)


def rows(seed, copies=40, candidates=200, kinds=3):
    rng = np.random.default_rng(seed)

    def half(n):
        strata = rng.integers(0, kinds, (n, 3))
        return strata, rng.normal(0, 0.5, (n, 2)), rng.permutation(n).astype(np.uint64)

    return (*half(copies), *half(candidates))


@given(SEEDS)
def test_controls_are_exact_near_and_used_once(seed):
    strata, measures, _, others, other_measures, _ = data = rows(seed)
    found = matching.match(*data)
    used = found.control[found.control >= 0]
    assert len(set(used.tolist())) == len(used)
    copy, place = np.nonzero(found.control >= 0)
    ours, theirs = found.copy[copy], found.control[copy, place]
    assert (strata[ours] == others[theirs]).all()
    assert (np.abs(measures[ours] - other_measures[theirs]) <= 0.25).all()
    assert found.unmatched + len(found.copy) == len(strata)


@given(SEEDS)
def test_no_free_candidate_would_fit_a_copy_with_room(seed):
    strata, measures, _, others, other_measures, _ = data = rows(seed)
    found = matching.match(*data)
    free = np.setdiff1d(np.arange(len(others)), found.control)
    n_found = np.zeros(len(strata), int)
    n_found[found.copy] = (found.control >= 0).sum(axis=1)
    for i in np.flatnonzero(n_found < 4):
        fits = (others[free] == strata[i]).all(axis=1)
        fits &= (np.abs(other_measures[free] - measures[i]) <= 0.25).all(axis=1)
        assert not fits.any()


@given(SEEDS)
def test_the_order_of_rows_does_not_matter(seed):
    data = rows(seed)
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(len(data[0])), rng.permutation(len(data[3]))
    found = matching.match(*data)
    moved = matching.match(*(x[p] for x in data[:3]), *(x[q] for x in data[3:]))
    pairs = {(c, k) for c, row in zip(found.copy, found.control, strict=True) for k in row}
    again = {
        (p[c], q[k] if k >= 0 else -1)
        for c, row in zip(moved.copy, moved.control, strict=True)
        for k in row
    }
    assert pairs == again


def test_turns_serve_every_copy_before_any_gets_a_second():
    strata, near = np.zeros((2, 1), int), np.zeros((2, 2))
    key = np.arange(2, dtype=np.uint64)
    found = matching.match(strata, near, key, strata, near, key)
    assert found.control.tolist() == [[0, -1, -1, -1], [1, -1, -1, -1]]


def test_missing_measures_and_empty_strata_are_unmatched():
    strata, key = np.array([[0], [1], [2]]), np.arange(3, dtype=np.uint64)
    measures = np.array([[0.0, 0.0], [np.nan, 0.0], [0.0, 0.0]])
    found = matching.match(strata, measures, key, strata[:2], np.zeros((2, 2)), key[:2])
    assert found.copy.tolist() == [0] and found.unmatched == 2
    empty = np.zeros((0, 1), int), np.zeros((0, 2)), key[:0]
    assert matching.match(strata, measures, key, *empty).unmatched == 3
    assert matching.match(*empty, strata, measures, key).unmatched == 0


def test_twenty_thousand_events_take_seconds():
    data = rows(0, 20_000, 20_000, kinds=5)
    start = time.perf_counter()
    found = matching.match(*data)
    # One second on a laptop core; thirty leave room for a busy machine.
    assert time.perf_counter() - start < 30
    assert len(found.copy) > 10_000
