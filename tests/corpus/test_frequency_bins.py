"""Frequency bins: equal widths in the logarithm, of counts or of ids."""

import fractions

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlens import designs, errors
from jaxlens.corpus import frequency_bins

N = designs.N_BINS


def level(value, low, high):
    """Equal widths in the logarithm, without logarithms: whole powers compare exactly."""
    share = fractions.Fraction(value, low) ** N
    return sum(share >= fractions.Fraction(high, low) ** b for b in range(1, N))


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=40).filter(any))
def test_counts_are_binned_by_their_logarithm(counts):
    spelled = [b"x"] * len(counts)
    found = frequency_bins.by_count(np.array(counts), spelled, ())
    low, high = min(c for c in counts if c), max(counts)
    expected = [level(c, low, high) if c else -1 for c in counts]
    assert found.tolist() == expected


def test_ids_are_binned_by_their_logarithm_with_the_last_as_the_rarest():
    spelled = [b"x"] * 256 + [b"xy"] * 50_000 + [b"<|endoftext|>"]
    found = frequency_bins.by_id(spelled, {50_256})
    assert (found[:256] == -1).all()
    assert found[50_256] == -1
    merged = found[256:50_256]
    assert (np.diff(merged) <= 0).all()
    edges = 257 * (50_256 / 257) ** (np.arange(N + 1) / N)
    expected = np.histogram(np.arange(257, 50_257), edges)[0][::-1]
    assert np.abs(np.bincount(merged) - expected).max() <= 1


def test_the_alphabet_special_tokens_and_holes_have_no_bin():
    found = frequency_bins.by_id([b"a", b"", b"ab", b"abc", b"<s>", b"abcd"], {4, 99})
    assert (found >= 0).tolist() == [False, False, True, True, False, True]
    assert found[2] == N - 1
    assert found[5] == 0


def test_counted_tokens_have_a_bin_though_they_are_of_the_alphabet():
    found = frequency_bins.by_count(
        np.array([1, 5, 0, 10**6, 7]), [b"a", b"", b"b", b"c", b"<s>"], {4}
    )
    assert found.tolist() == [0, -1, -1, N - 1, -1]


def test_a_vocabulary_without_frequencies_is_refused():
    with pytest.raises(errors.ConfigError, match="no token"):
        frequency_bins.by_id([b"a", b"b"], ())
    with pytest.raises(errors.ConfigError, match="no token"):
        frequency_bins.by_count(np.zeros(2, int), [b"ab", b"b"], ())
