"""Linear discriminant analysis in closed form, from moments.

Reference: Hastie, Tibshirani and Friedman 2009, The Elements of Statistical Learning, 4.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxlens.sweep.probe.moments import Layer

RIDGE = 1e-3
"""Added to the pooled covariance, relative to its mean eigenvalue."""

_PRIOR = 0.5
"""Added to the training occurrences of each candidate for its prior."""


_NOISE = 1e-6
"""Share of the mean square below which the variance within classes is rounding."""


class Discriminant(NamedTuple):
    """The probe of a target at a layer, in the units of its moments.

    The score of class k at a stream x is ``weight[k] @ x + bias[k]``, which up to a constant is
    ``mean[k]' S^-1 x - mean[k]' S^-1 mean[k] / 2 + ln prior[k]``.

    Attributes:
        mean: Mean of each class; of no candidate the centre.
        centre: Mean of all candidates' positions.
        weight: ``S^-1 (mean - centre)``.
        bias: Minus infinity where the class is no candidate.
    """

    mean: Float64[np.ndarray, "class embed"]
    centre: Float64[np.ndarray, " embed"]
    weight: Float64[np.ndarray, "class embed"]
    bias: Float64[np.ndarray, " class"]


def fit(
    moments: Layer, count: Int64[np.ndarray, " class"], is_candidate: Bool[np.ndarray, " class"]
) -> Discriminant:
    """Fits the probe of a target at a layer.

    Args:
        moments: Sums of each class, and products over the positions of all candidates.
        count: Training occurrences of each class.
        is_candidate: Classes to choose from; of the others neither sum nor count is used.
    """
    count = np.where(is_candidate, count, 0)
    total, n_candidates = int(count.sum()), int(is_candidate.sum())
    if not n_candidates:
        nothing = np.zeros_like(moments.sums)
        return Discriminant(nothing, nothing[0], nothing, np.full(len(count), -np.inf))
    sums = np.where(is_candidate[:, None], moments.sums, 0.0)
    centre = sums.sum(0) / total
    mean = np.where(is_candidate[:, None], sums / np.maximum(count, 1)[:, None], centre)
    between = (mean * count[:, None]).T @ mean
    within = (moments.products - between) / max(1, total - n_candidates)
    covariance = _regular(within, float(np.trace(moments.products)) / max(1, total))
    away = mean - centre
    weight = np.linalg.solve(covariance, away.T).T
    prior = np.log((count + _PRIOR) / (total + _PRIOR * n_candidates))
    bias = prior - (away * weight).sum(1) / 2 - weight @ centre
    return Discriminant(mean, centre, weight, np.where(is_candidate, bias, -np.inf))


def _regular(
    within: Float64[np.ndarray, "embed embed"], square: float
) -> Float64[np.ndarray, "embed embed"]:
    """The covariance within classes with its ridge.

    Where all positions of a class are equal, as those of a token at the input of a model without
    position embeddings, nothing varies within it. What is left of the difference of two large sums
    has no inverse that means anything; the nearest class mean decides.

    Args:
        within: The covariance.
        square: Mean square of the positions.
    """
    identity = np.eye(len(within))
    variance = float(np.trace(within))
    if variance <= _NOISE * square:
        return identity
    return within + RIDGE * (variance / len(within)) * identity
