"""Copies against their matched controls, clustered by document.

Reference:
    Aronow, Samii and Assenova 2015, doi:10.1093/pan/mpv018 (variance of pairs that share members).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study import resample


def matched_difference(
    copies: Num[np.ndarray, " match"],
    controls: Num[np.ndarray, "match control"],
    cluster: Int[np.ndarray, " match"],
    control_cluster: Int[np.ndarray, "match control"],
    level: float = 0.95,
) -> resample.Estimate:
    """Mean over matches of a copy's value minus the mean of its controls'.

    A copy and its controls lie in different documents, and both documents correlate what they
    hold. A bootstrap by the copy's document alone would miss the second half, and also what cancels
    where a document holds both copies and controls. So each pair (copy,
    control) is a term with two members, and the variance is the sum of products of all terms that
    share a member, multiplied by ``m / (m - 1)`` for the effective number m of the copies'
    documents; t has m - 1 degrees of freedom. It needs no replicas.

    Args:
        copies: Value of each copy; NaN drops the match.
        controls: Values of its controls, NaN where there is none; a match needs one at least.
        cluster: Document (or group of documents) of each copy, non-negative.
        control_cluster: That of each control; ignored where the control is NaN.
        level: Coverage.
    """
    copies, controls = np.asarray(copies, np.float64), np.asarray(controls, np.float64)
    held = np.isfinite(controls)
    used = np.isfinite(copies) & held.any(axis=1)
    copies, controls, held = copies[used], controls[used], held[used]
    n = len(copies)
    if not n:
        return resample.missing(resample.EMPTY)
    share = held / held.sum(axis=1, keepdims=True)
    gaps = np.where(held, copies[:, None] - controls, 0.0)
    value = float((share * gaps).sum() / n)
    terms = (share * (gaps - value) / n)[held]
    ours = np.broadcast_to(np.asarray(cluster)[used][:, None], held.shape)[held]
    theirs = np.asarray(control_cluster)[used][held]
    sizes = np.unique(ours, return_counts=True)[1]
    size = float(resample.effective(np.bincount(ours, (share / n)[held])))
    clusters = min(len(sizes), len(np.unique(theirs)))
    variance = _shared_member_variance(terms, ours, theirs) * size / max(size - 1, 1.0)
    return resample.t_interval(value, math.sqrt(variance), size - 1, level, n, clusters)


def _shared_member_variance(
    terms: Float[np.ndarray, " term"],
    first: Int[np.ndarray, " term"],
    second: Int[np.ndarray, " term"],
) -> float:
    """Variance of a sum of terms of which those that share a member are correlated."""

    def squares(labels: np.ndarray, values: np.ndarray) -> float:
        _, place = np.unique(labels, return_inverse=True)
        return float(np.square(np.bincount(place, values)).sum()) if len(values) else 0.0

    two = first != second
    members = np.concatenate([first, second[two]])
    once = squares(members, np.concatenate([terms, terms[two]]))
    # Terms that share both members were counted under each.
    low, high = np.minimum(first, second), np.maximum(first, second)
    pair = low * (int(high.max(initial=0)) + 1) + high
    both = squares(pair[two], terms[two])
    # Independent pairs have at least half of the first sum, and one control exactly half of it; by
    # chance the difference can fall below that, and below zero.
    return max(once - both, once / 2)
