"""Ids that carry a design: one grammar, read back exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import designs

BINS = st.integers(0, designs.N_BINS - 1)
WORDS = st.text(st.characters(exclude_characters="/\n\r"), min_size=1, max_size=20)


@given(BINS, st.sampled_from(designs.LAGS), st.integers(0, 10**6))
def test_the_id_of_a_repeated_block_is_read_back(number, lag, sequence):
    found = designs.parse(designs.repeats_id(number, lag, sequence))
    assert found is not None
    assert (found.design, found.bin, found.lag, int(found.name)) == (
        *("repeats", number, lag, sequence),
    )


@given(BINS, WORDS)
def test_the_id_of_a_sentence_or_prompt_is_read_back(number, word):
    assert designs.parse(designs.plasma_id(number, word)) == designs.Design("plasma", word, number)
    assert designs.parse(designs.curated_id(word)) == designs.Design("curated", word)


def test_the_sentence_of_the_post_has_no_bin():
    assert designs.parse(designs.POST) == designs.Design("plasma", "plasma", None)


@pytest.mark.parametrize(
    "identifier",
    [
        *("", "d0", "repeats", "plasma/", "curated/", "curated/a/b", "texts/repeats/bin-1/x"),
        *("repeats/bin-8/lag-16/000", "repeats/bin-1/lag-16/", "repeats/bin-1/lag-/000"),
        *("repeats/bin-1/lag-16/000/", "plasma/bin-1/a/b", "plasma/bin-/a", "Curated/a"),
    ],
)
def test_other_ids_have_no_design(identifier):
    assert designs.parse(identifier) is None


def test_only_a_made_corpus_alone_has_a_kind_of_its_own():
    for name in designs.CORPORA:
        assert designs.kind([name]) == name
    assert designs.kind(["packaged"]) == designs.kind(["a.txt", "b.txt"]) == designs.TEXT
