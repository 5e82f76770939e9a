"""Draws that depend on their seeds alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlens.corpus.synthetic import draws

SEEDS = st.lists(st.integers(-(2**70), 2**70), max_size=4)


@given(SEEDS, st.integers(0, 300))
def test_all_of_them_drawn_are_a_permutation(seeds, size):
    drawn = draws.sample(draws.start(*seeds), size, size)
    assert sorted(drawn.tolist()) == list(range(size))


@given(SEEDS, st.integers(1, 300), st.data())
def test_fewer_are_the_first_of_all(seeds, size, data):
    count = data.draw(st.integers(0, size))
    begin = draws.start(*seeds)
    whole = draws.sample(begin, size, size)
    assert draws.sample(begin, size, count).tolist() == whole[:count].tolist()


def test_draws_are_these_on_every_machine():
    """Computed with whole numbers of Python, from the definition of SplitMix64."""

    def mix(value):
        word = 2**64 - 1
        value = (value + 0x9E3779B97F4A7C15) & word
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & word
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & word
        return value ^ (value >> 31)

    state = mix(mix(mix(0 ^ 3) ^ (2**64 - 5)) ^ 16)
    keys = [mix((state + n) % 2**64) for n in range(50)]
    expected = sorted(range(50), key=keys.__getitem__)
    assert draws.sample(draws.start(3, -5, 16), 50, 50).tolist() == expected


def test_every_number_is_as_likely_at_every_place():
    size, times = 5, 4_000
    places = np.zeros((size, size))
    for seed in range(times):
        places[np.arange(size), draws.sample(draws.start(seed), size, size)] += 1
    # Chi-squared with 16 degrees of freedom: above 39.3 once in a thousand; the seeds are fixed.
    assert ((places - times / size) ** 2 / (times / size)).sum() < 39.3
