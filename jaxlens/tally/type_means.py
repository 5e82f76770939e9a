"""Means of token types that are fixed before a sweep, for products within types.

They come from the sums by type of a sample of the text, or of a previous run. A type weighs its own
positions and, as one more, the mean of its bin of rarity: a type that the sample lacks has that
mean, a frequent one its own. All is integer arithmetic, so equal sums give equal means anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from jaxlens.tally import axes, bins

NEEDED = ("type_count", "type_sum", "type_regressor", "type_copied")
"""Tallies of the second edition that hold the sums."""


class TypeMeans(NamedTuple):
    """Means by token type, in units of 2**-16.

    Attributes:
        column: Of ``axes.WITHIN``.
        ln_rank: Of ln rank_input.
    """

    column: Int32[np.ndarray, "vocab within"]
    ln_rank: Int32[np.ndarray, "vocab layer"]


def of_sums(
    tallies: Mapping[str, Int64[np.ndarray, "..."]], counts: Int[np.ndarray, "fold vocab"]
) -> TypeMeans:
    """The means that follow from sums by type.

    Args:
        tallies: Those of `NEEDED`.
        counts: Occurrences of each token in the whole corpus, which decide its bin of rarity.
    """
    count = np.asarray(tallies["type_count"], np.int64)
    places = [axes.REGRESSORS.index(name) for name in axes.VARYING]
    columns = [
        tallies["type_regressor"][:, places],
        tallies["type_copied"][:, None] * bins.ONE,
    ]
    rarity = bins.frequency_bin(bins.type_rarity(counts))
    return TypeMeans(
        column=shrunk(np.concatenate(columns, axis=1), count, rarity),
        ln_rank=shrunk(tallies["type_sum"], count, rarity),
    )


def shrunk(
    total: Int64[np.ndarray, "vocab column"],
    count: Int64[np.ndarray, " vocab"],
    rarity: Int64[np.ndarray, " vocab"],
) -> Int32[np.ndarray, "vocab column"]:
    """Means of types, each with one more position that has the mean of its bin.

    Args:
        total: Sums by type, in units of 2**-16.
        count: Positions of each type.
        rarity: Bin of each type, of ``bins.FREQUENCY_BINS``; one without positions has the mean of
            all.
    """
    n = np.zeros(bins.FREQUENCY_BINS, np.int64)
    of_bin = np.zeros((bins.FREQUENCY_BINS, total.shape[1]), np.int64)
    np.add.at(n, rarity, count)
    np.add.at(of_bin, rarity, total)
    whole = _quotients(total.sum(0, keepdims=True), count.sum(keepdims=True))
    of_bin = np.where(n[:, None] > 0, _quotients(of_bin, n), whole)
    return _quotients(total + of_bin[rarity], count + 1).astype(np.int32)


def _quotients(
    total: Int64[np.ndarray, "line column"], count: Int64[np.ndarray, " line"]
) -> Int64[np.ndarray, "line column"]:
    """Integers nearest to quotients, halves rounded up; 0 of nothing."""
    divisor = np.maximum(count, 1)[:, None]
    return (2 * total + divisor) // (2 * divisor)
