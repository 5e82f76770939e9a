"""Copies against their matched controls, clustered by document.

Reference:
    Efron and Stein 1981, doi:10.1214/aos/1176345462 (jackknife); Aronow, Samii and Assenova 2015,
    doi:10.1093/pan/mpv018 (variance of pairs that share members).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study.stats import bootstrap


def matched_difference(
    copies: Num[np.ndarray, " match"],
    controls: Num[np.ndarray, "match control"],
    cluster: Int[np.ndarray, " match"],
    control_cluster: Int[np.ndarray, "match control"],
    level: float = 0.95,
) -> bootstrap.Estimate:
    """Mean over matches of a copy's value minus the mean of its controls'.

    A copy and its controls lie in different documents, and both documents correlate what they
    hold. A bootstrap by the copy's document alone would miss the second half, and also what
    cancels where a document holds both copies and controls. So each pair (copy, control) is a
    term with two members, and the variance is the sum of products of all terms that share a
    member, in the form of a jackknife over documents: with few of them the plain sum is a tenth
    too small. t has ``m - 1`` degrees of freedom, m being the effective number of the copies'
    documents. It needs no replicas.

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
        return bootstrap.missing(bootstrap.EMPTY)
    share = held / held.sum(axis=1, keepdims=True)
    gaps = np.where(held, copies[:, None] - controls, 0.0)
    value = float((share * gaps).sum() / n)
    terms = (share * (gaps - value) / n)[held]
    ours = np.broadcast_to(np.asarray(cluster)[used][:, None], held.shape)[held]
    theirs = np.asarray(control_cluster)[used][held]
    weight = (share / n)[held]
    # Small labels, since labels may be hashes.
    names, of_name = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    ours, theirs = np.split(of_name.reshape(-1), 2)
    clusters = min(len(np.unique(ours)), len(np.unique(theirs)))
    size = float(bootstrap.effective(np.bincount(ours, weight)))
    if clusters < bootstrap.MIN_CLUSTERS:
        return bootstrap.missing(bootstrap.TOO_FEW, value, n, clusters)
    variance = _shared_member_variance(terms, weight, ours, theirs, len(names))
    return bootstrap.t_interval(value, math.sqrt(variance), size - 1, level, n, clusters)


def _shared_member_variance(
    terms: Float[np.ndarray, " term"],
    weight: Float[np.ndarray, " term"],
    first: Int[np.ndarray, " term"],
    second: Int[np.ndarray, " term"],
    members: int,
) -> float:
    """Variance of a weighted mean of which terms that share a member are correlated.

    Leaving member d out moves the mean by ``-T_d / (1 - w_d)``, where T_d and w_d sum the
    deviations and the weights of all terms with d.
    """
    two = first != second
    member = np.concatenate([first, second[two]])
    held = np.bincount(member, np.concatenate([weight, weight[two]]), members)
    moved = np.bincount(member, np.concatenate([terms, terms[two]]), members)
    # A member of every term leaves nothing when it is left out: no finite variance is honest.
    once = np.square(moved / np.maximum(1 - held, 1e-9)).sum()
    # Terms that share both members were counted under each.
    low, high = np.minimum(first, second)[two], np.maximum(first, second)[two]
    _, pair = np.unique(low * members + high, return_inverse=True)
    both = np.square(np.bincount(pair.reshape(-1), terms[two])).sum()
    # Independent pairs have at least half of the first sum, and one control exactly half of it; by
    # chance the difference can fall below that, and below zero.
    return float(max(once - both, once / 2))
