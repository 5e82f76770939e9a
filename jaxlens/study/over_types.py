"""What groups of documents make of a slope over token types, from rows less the means of types.

The slope weighs the mean ln rank of each type. A position's part in it is its deviation from the
mean of its type, times the weight of the type over its positions; see ``stats.same_type``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxlens.study import fold
from jaxlens.study.stats import same_type
from jaxlens.tally import axes, bins, facts, regressors

_SIDES = (("input", "token", ""), ("foreign", "foreign_token", "foreign_"))
"""Own and foreign: the reference, its column of tokens, and its tallies."""


def rarity(counts: Int[np.ndarray, "fold vocab"]) -> Float[np.ndarray, " vocab"]:
    """Rarity of the types by all occurrences, nat."""
    return bins.type_rarity_table(counts) / bins.ONE


def weights(counts: Int[np.ndarray, "fold vocab"]) -> Float[np.ndarray, "weighting vocab"]:
    """Weights of the types: that of a token times its tokens."""
    return regressors.type_weights(counts) / bins.ONE * counts.sum(0)


def coefficients(
    tallies: fold.Tallies, counts: Int[np.ndarray, "fold vocab"]
) -> Float[np.ndarray, "own_foreign weighting vocab"]:
    """What a nat of a position adds to the slope, by its type; zeros of types that do not count.

    Args:
        tallies: Of the rows.
        counts: Occurrences in the corpus.
    """
    sides = tallies["type_count"], tallies["foreign_type_count"]
    each = [same_type.coefficients(*sides, rarity(counts), weight) for weight in weights(counts)]
    return np.stack(each, axis=1)


def empty(n_layers: int) -> Float[np.ndarray, "weighting group layer"]:
    """Scores of no rows."""
    return np.zeros((len(axes.WEIGHTINGS), bins.GROUPS, n_layers))


def add(
    total: Float[np.ndarray, "weighting group layer"],
    rows: facts.Facts,
    tallies: fold.Tallies,
    of_type: Float[np.ndarray, "own_foreign weighting vocab"],
) -> None:
    """Adds rows to scores, which are altered.

    Args:
        total: So far.
        rows: Of NumPy.
        tallies: Of all rows.
        of_type: From `coefficients`.
    """
    for (reference, column, name), each in zip(_SIDES, of_type, strict=True):
        used = np.flatnonzero(np.asarray(rows.present[reference])[:, 0])
        token = np.asarray(rows.values[column])[used]
        count = np.maximum(tallies[f"{name}type_count"], 1)[:, None]
        mean = (tallies[f"{name}type_sum"] / count)[token]
        y = (rows.ln[reference][used] - mean) / bins.ONE
        for number, part in fold.by_group(np.asarray(rows.group)[used]):
            total[:, number] += each[:, token[part]] @ y[part]
