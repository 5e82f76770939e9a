"""Means of token types: rounded quotients, drawn to the bin of rarity where there are few rows."""

from fractions import Fraction

import numpy as np

from jaxlens.tally import axes, bins, type_means

VOCAB, LAYERS = 60, 4


def sums(seed):
    random = np.random.default_rng(seed)
    count = random.poisson(3, VOCAB)
    count[VOCAB // 2 :] = 0  # whole bins of rarity are not seen
    scale = count[:, None] * bins.ONE
    columns = len(axes.REGRESSORS)
    return {
        "type_count": count,
        "type_sum": random.integers(0, 5, (VOCAB, LAYERS)) * scale + (scale > 0),
        "type_regressor": random.integers(-3, 9, (VOCAB, columns)) * scale - 7 * (scale > 0),
        "type_copied": random.binomial(count, 0.3),
    }


COUNTS = np.array([[2 ** (i // 4) for i in reversed(range(VOCAB))], [0] * VOCAB])


def nearest(value):
    """The nearest integer, halves up."""
    return (value + Fraction(1, 2)).__floor__()


def expected(total, count):
    rarity = bins.frequency_bin(bins.type_rarity(COUNTS))
    whole = nearest(Fraction(int(total.sum()), int(count.sum())))
    found = []
    for token in range(VOCAB):
        same = rarity == rarity[token]
        seen = int(count[same].sum())
        mean = nearest(Fraction(int(total[same].sum()), seen)) if seen else whole
        found.append(nearest(Fraction(int(total[token]) + mean, int(count[token]) + 1)))
    return found


def test_means_are_rounded_quotients_with_one_more_position_of_the_bin():
    tallies = sums(0)
    means = type_means.of_sums(tallies, COUNTS)
    assert means.column.shape == (VOCAB, len(axes.WITHIN)) and means.column.dtype == np.int32
    assert means.ln_rank.shape == (VOCAB, LAYERS) and means.ln_rank.dtype == np.int32
    count = tallies["type_count"]
    for i, name in enumerate(axes.VARYING):
        total = tallies["type_regressor"][:, axes.REGRESSORS.index(name)]
        assert means.column[:, i].tolist() == expected(total, count), name
    copied = expected(tallies["type_copied"] * bins.ONE, count)
    assert axes.WITHIN[-1] == "copied" and means.column[:, -1].tolist() == copied
    for layer in range(LAYERS):
        assert means.ln_rank[:, layer].tolist() == expected(tallies["type_sum"][:, layer], count)


def test_types_without_positions_have_the_mean_of_their_bin_or_of_all():
    tallies = sums(1)
    means = type_means.of_sums(tallies, COUNTS)
    rarity = bins.frequency_bin(bins.type_rarity(COUNTS))
    seen = tallies["type_count"] > 0
    beyond = ~np.isin(rarity, rarity[seen])
    assert beyond.any() and len(np.unique(means.ln_rank[beyond], axis=0)) == 1
    for number in np.unique(rarity[~seen]):
        members = ~seen & (rarity == number)
        assert len(np.unique(means.column[members], axis=0)) == 1


def test_a_sample_without_positions_has_means_of_zero():
    nothing = {name: np.zeros_like(total) for name, total in sums(0).items()}
    assert not any(table.any() for table in type_means.of_sums(nothing, COUNTS))
