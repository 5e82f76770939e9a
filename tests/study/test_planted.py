"""Planted effects: intervals cover the truth, and do not see what is not there."""

import pytest
from study import (
    planted,
    planted_crossed,
    planted_matches,
    planted_table,
    planted_types,
    planted_within,
)

BAND, REPLICAS = (0.93, 0.97), 1_000
"""A correct 95 % interval leaves the band in 0.4 % of all sets of 1,000 replicas."""

QUICK_COVERAGE, QUICK_REJECTION, QUICK = 0.85, 0.15, 40
"""The same for 40 replicas: 34 of 40 must cover; a correct interval fails in 0.3 %."""


def first(count, names):
    """All of them, and what comes after so many is long."""
    return [
        pytest.param(name, marks=[pytest.mark.long] * (place >= count))
        for place, name in enumerate(names)
    ]


@pytest.mark.parametrize("primary", [p for p in planted.PRIMARIES if "median" not in p])
def test_quick_look_at_forty_documents(primary):
    found = planted.score(primary, 40, False, QUICK)
    assert found.coverage >= QUICK_COVERAGE
    assert found.rejection <= QUICK_REJECTION


@pytest.mark.long
@pytest.mark.parametrize("documents", planted.DOCUMENTS)
@pytest.mark.parametrize("primary", planted.PRIMARIES)
def test_primaries_cover_what_was_planted_and_reject_only_what_was(primary, documents):
    replicas = FEW_REPLICAS if documents == min(planted.DOCUMENTS) else REPLICAS
    scores = [planted.score(primary, documents, effect, replicas) for effect in (False, True)]
    print(planted.markdown(scores))
    assert all(BAND[0] <= found.coverage <= BAND[1] for found in scores)
    assert scores[0].rejection <= 1 - BAND[0]


def test_the_table_has_a_line_for_every_score():
    found = planted.table(replicas=1, documents=(200,))
    assert planted.markdown(found).count("\n") == 1 + 2 * len(planted.PRIMARIES)


FEW_REPLICAS = 4_000
"""Where documents are few intervals are a little wide: a true coverage of 96.3 % leaves the band in
12 % of all sets of 1,000 replicas, and in 1 % of those of 4,000."""

HARD_REPLICAS = 2_000
"""A correct 95 % interval leaves the band in one of 25,000 sets of so many replicas."""


@pytest.mark.parametrize("case", first(2, planted_matches.CASES))
@pytest.mark.parametrize("name", first(2, planted_matches.ESTIMATORS))
def test_quick_look_at_matched_copies(name, case):
    covered, _ = planted_matches.coverage(name, case, 40, QUICK)
    assert covered >= QUICK_COVERAGE


@pytest.mark.long
@pytest.mark.parametrize("documents", planted_matches.DOCUMENTS)
@pytest.mark.parametrize("case", planted_matches.CASES)
@pytest.mark.parametrize("name", planted_matches.ESTIMATORS)
def test_intervals_of_matched_copies_cover_what_was_planted(name, case, documents):
    covered, bias = planted_matches.coverage(name, case, documents, HARD_REPLICAS)
    print(name, case, documents, covered, bias)
    assert BAND[0] <= covered <= BAND[1]


HARD = [(one, name) for one in (planted_types, planted_within) for name in one.CASES]


def named(case):
    return case if isinstance(case, str) else case.__name__.rpartition("_")[2]


@pytest.mark.parametrize(
    ("planted", "name"),
    [pytest.param(*case, marks=[pytest.mark.long] * bool(at % 3)) for at, case in enumerate(HARD)],
    ids=named,
)
def test_quick_look_at_hard_data(planted, name):
    covered, _ = planted.coverage(name, 40, QUICK)
    assert covered >= QUICK_COVERAGE


@pytest.mark.long
@pytest.mark.parametrize("documents", [40, 200])
@pytest.mark.parametrize("name", planted_types.CASES)
def test_intervals_over_types_cover_without_rows_too(name, documents):
    covered, bias = planted_types.coverage(name, documents, REPLICAS, rows=False)
    print(name, documents, covered, bias)
    assert BAND[0] <= covered <= BAND[1]


@pytest.mark.long
@pytest.mark.parametrize("documents", [40, 200])
@pytest.mark.parametrize(("planted", "name"), HARD, ids=named)
def test_intervals_cover_hard_data(planted, name, documents):
    covered, bias = planted.coverage(name, documents, REPLICAS)
    print(named(planted), name, documents, covered, bias)
    assert BAND[0] <= covered <= BAND[1]


MAX_WIDTH = {(40, 0.1): 1.25, (200, 0.1): 1.1, (200, 0.01): 1.25}
"""Widths beside those from rows that a sample's means may lead to, by documents and share."""


@pytest.mark.parametrize("name", first(2, planted_table.CASES))
def test_quick_look_at_means_of_a_sample(name):
    covered, _, width, unseen = planted_table.coverage(name, 40, 0.1, QUICK)
    assert covered >= QUICK_COVERAGE and unseen > 0.3
    assert 0.9 < width < MAX_WIDTH[40, 0.1]


@pytest.mark.long
@pytest.mark.parametrize(("documents", "share"), MAX_WIDTH)
@pytest.mark.parametrize("name", planted_table.CASES)
def test_intervals_about_means_of_a_sample_cover_and_are_a_little_wide(name, documents, share):
    covered, of_rows, width, unseen = planted_table.coverage(name, documents, share, REPLICAS)
    print(name, documents, share, covered, of_rows, width, unseen)
    # They err on the wide side alone: what types add that the sample saw seldom is not taken out.
    assert covered >= BAND[0]
    assert 0.98 < width < MAX_WIDTH[documents, share]


@pytest.mark.parametrize("name", first(3, planted_crossed.CASES))
def test_quick_look_at_crossed_effects(name):
    for covered, _, printed in planted_crossed.coverage(name, 40, QUICK):
        assert covered >= QUICK_COVERAGE and printed >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("documents", planted_crossed.DOCUMENTS)
@pytest.mark.parametrize("name", planted_crossed.CASES)
def test_intervals_of_crossed_effects_cover_what_was_planted(name, documents):
    scores = planted_crossed.coverage(name, documents, REPLICAS)
    print(name, documents, scores)
    for covered, _, printed in scores:
        assert printed >= 0.9 and BAND[0] <= covered <= BAND[1]
