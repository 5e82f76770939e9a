"""What outcomes are regressed on, as integers: splines of position and room, and weights of types.

Second edition of the covariates: the effect of the position is no straight line in its logarithm,
and how often a token is copied depends on the room that its context leaves. Both enter as linear
splines in log2, with a knot at each power of two. ``xp`` is ``jax.numpy`` or ``numpy``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Integer

from jaxlens import schema
from jaxlens.tally import axes, bins

MIN_OCCURRENCES = 5
"""Token types that the corpus holds less often have no weight."""

_LN_2 = round(math.log(2) * bins.ONE)

_WEIGHT_OF_ONE = {"types": 2**12, "root": 2**6, "tokens": 1}
"""Scale of the weights of a token, so that those of frequent types are no rounding error."""


def room(
    document_size: Integer[np.ndarray, " n"],
    offset: Integer[np.ndarray, " n"],
    position: Integer[np.ndarray, " n"],
    length: int,
) -> Int32[np.ndarray, " n"]:
    """Tokens that a context still holds after each of its tokens.

    Args:
        document_size: Tokens of the document.
        offset: Place of the token in its document.
        position: Its place in the context.
        length: Longest context.
    """
    begin = offset.astype(np.int64) - position.astype(np.int64)
    end = np.minimum(begin + length, document_size.astype(np.int64))
    return np.clip(end - offset.astype(np.int64) - 1, 0, bins.MAX_LN - 1).astype(np.int32)


def type_weights(counts: Int[np.ndarray, "fold vocab"]) -> Int32[np.ndarray, "weighting vocab"]:
    """Weight of one token of each type, in fixed point: the type's weight over its tokens.

    Args:
        counts: Occurrences.
    """
    n = np.asarray(counts, np.float64).sum(0)
    share = {"types": 1 / np.maximum(n, 1), "root": 1 / np.sqrt(np.maximum(n, 1)), "tokens": n**0}
    weight = [share[name] * _WEIGHT_OF_ONE[name] for name in axes.WEIGHTINGS]
    enough = n >= MIN_OCCURRENCES
    return np.rint(np.where(enough, weight, 0.0) * bins.ONE).astype(np.int32)


def of_rows(
    values: Mapping[str, Any], piece: Any, fixed: Mapping[str, Any], ln: Any, xp: Any
) -> Any:
    """Regressors of rows in fixed point, ``[row, regressor]``.

    Args:
        values: Columns, ``room`` among them.
        piece: Class of the piece of a word, ``[row]``.
        fixed: ``rarity``, ``surprisal`` and ``embedding_norm`` in fixed point.
        ln: Fixed-point ln of integers to ``bins.MAX_LN``.
        xp: ``numpy`` or ``jax.numpy``.
    """
    columns = dict(fixed) | {
        "constant": xp.ones_like(piece) * bins.ONE,
        "later_occurrence": (values["prev_count"] > 0).astype(xp.int32) * bins.ONE,
        "ln_distance": ln[values["prev_distance"]],
        "ln_count": ln[values["prev_count"] + 1],
        "first_piece": (piece == schema.PIECE_FIRST).astype(xp.int32) * bins.ONE,
        "middle_piece": (piece == schema.PIECE_MIDDLE).astype(xp.int32) * bins.ONE,
        "last_piece": (piece == schema.PIECE_LAST).astype(xp.int32) * bins.ONE,
    }
    for name, number in (("position", values["position"]), ("room", values["room"] + 1)):
        hats = _hats(ln[number], xp)
        columns |= {f"{name}_{knot}": hats[:, i] for i, knot in enumerate(axes.KNOTS)}
    return xp.stack([columns[name] for name in axes.REGRESSORS], axis=-1)


def _hats(ln: Any, xp: Any) -> Any:
    """Weights of the knots of a linear spline in log2, ``[row, knot]``; they add up to at most 1.

    Args:
        ln: Fixed-point ln of the numbers, ``[row]``.
        xp: ``numpy`` or ``jax.numpy``.
    """
    last = len(axes.KNOTS)
    octave = (ln.astype(xp.int64) << bins.FIXED_POINT_BITS) // _LN_2
    octave = xp.clip(octave, 0, last * bins.ONE).astype(xp.int32)
    knots = xp.arange(1, last + 1, dtype=xp.int32) * bins.ONE
    return xp.maximum(bins.ONE - xp.abs(octave[:, None] - knots[None]), 0)
