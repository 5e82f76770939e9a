"""Copies against their matched controls: each copy weighs one, documents are the clusters.

A copy and its controls lie in different documents, and both documents correlate what they hold. A
bootstrap by the copy's document alone would miss the second half, and also what cancels where a
document holds both copies and controls. So each pair (copy, control) is a term with two members,
and the variance is the sum of products of all terms that share a member, in the form of a jackknife
over documents: with few of them the plain sum is a tenth too small. The interval is one of t with
``m - 1`` degrees of freedom, m being the effective number of the copies' documents. A copy with
four controls weighs what a copy with one does, in every number of this module.

Reference:
    Efron and Stein 1981, doi:10.1214/aos/1176345462 (jackknife); Aronow, Samii and Assenova 2015,
    doi:10.1093/pan/mpv018 (variance of pairs that share members); Rubin 1979,
    doi:10.1080/01621459.1979.10482513 (regression adjustment of matched pairs); Cliff 1993,
    doi:10.1037/0033-2909.114.3.494.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import stats

from jaxlens.study.stats import bootstrap

CONSTANT = "the same in all matches"
_LAST_BITS = 1e-12


@dataclass(frozen=True, eq=False)
class Values:
    """Values of copies and their controls, from `values`.

    Attributes:
        used: Which of the matches they are of.
        copies: Value of each copy, ``[match]``.
        controls: Values of its controls, 0 where there is none, ``[match, control]``.
        held: Where there is a control.
        share: Weight of each control: a match's add up to one.
        ours: Document of the copy of each pair that is held, small labels, ``[pair]``.
        theirs: Document of its control.
    """

    used: Bool[np.ndarray, " given"]
    copies: Float[np.ndarray, " match"]
    controls: Float[np.ndarray, "match control"]
    held: Bool[np.ndarray, "match control"]
    share: Float[np.ndarray, "match control"]
    ours: Int[np.ndarray, " pair"]
    theirs: Int[np.ndarray, " pair"]

    @property
    def n(self) -> int:
        """Number of matches."""
        return len(self.copies)

    @property
    def weight(self) -> Float[np.ndarray, " pair"]:
        """Weight of each pair; all add up to one."""
        return self.share[self.held] / self.n

    @property
    def control_means(self) -> Float[np.ndarray, " match"]:
        """Mean of the controls of each match."""
        return (self.share * self.controls).sum(1)

    @property
    def clusters(self) -> int:
        """Documents of the copies or of the controls, whichever are fewer."""
        return min(len(np.unique(self.ours)), len(np.unique(self.theirs)))

    @property
    def size(self) -> float:
        """Effective number of the copies' documents."""
        return float(bootstrap.effective(np.bincount(self.ours, self.weight)))

    def mean(self, values: Float[np.ndarray, "match control"]) -> float:
        """Mean over matches of the mean over their controls."""
        return float(np.where(self.held, self.share * values, 0.0).sum() / self.n)

    def variance(self, deviations: Float[np.ndarray, "match control"]) -> tuple[float, float]:
        """Variance of a mean over pairs of which those that share a document are correlated.

        Args:
            deviations: What each pair contributes less the mean; read where a pair is held.

        Returns:
            The variance and its degrees of freedom.
        """
        terms = self.weight * deviations[self.held]
        moved = _left_out(terms, self.weight, self.ours, self.theirs)
        variance = _shared_member_variance(moved, terms, self.ours, self.theirs)
        # Not fewer where few documents decide the variance (`freedom`): planted copies are covered
        # by 94 to 97 % as it is.
        return variance, max(self.size - 1, 1.0)

    def estimate(
        self, value: float, deviations: Float[np.ndarray, "match control"], level: float
    ) -> bootstrap.Estimate:
        """A mean over pairs with its interval."""
        if bootstrap.too_few(self.clusters, self.size):
            return bootstrap.missing(bootstrap.TOO_FEW, value, self.n, self.clusters)
        variance, df = self.variance(deviations)
        if variance == 0:
            return bootstrap.missing(CONSTANT, value, self.n, self.clusters)
        return bootstrap.t_interval(value, math.sqrt(variance), df, level, self.n, self.clusters)


def values(
    copies: Num[np.ndarray, " given"],
    controls: Num[np.ndarray, "given control"],
    cluster: Int[np.ndarray, " given"],
    control_cluster: Int[np.ndarray, "given control"],
) -> Values:
    """Values of matches, each pair of a copy and a control with its documents.

    Args:
        copies: Value of each copy; NaN drops the match.
        controls: Values of its controls, NaN where there is none; a match needs one at least.
        cluster: Document (or group of documents) of each copy, non-negative.
        control_cluster: That of each control; ignored where the control is NaN.
    """
    copies, controls = np.asarray(copies, np.float64), np.asarray(controls, np.float64)
    held = np.isfinite(controls)
    used = np.isfinite(copies) & held.any(axis=1)
    copies, controls, held = copies[used], controls[used], held[used]
    share = held / np.maximum(held.sum(axis=1, keepdims=True), 1)
    ours = np.broadcast_to(np.asarray(cluster)[used][:, None], held.shape)[held]
    theirs = np.asarray(control_cluster)[used][held]
    # Small labels, since labels may be hashes.
    _, label = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    ours, theirs = np.split(label.reshape(-1), 2)
    return Values(used, copies, np.where(held, controls, 0.0), held, share, ours, theirs)


def difference(of: Values, level: float = 0.95) -> bootstrap.Estimate:
    """Mean over matches of a copy's value minus the mean of its controls'.

    Args:
        of: Values of the matches.
        level: Coverage.
    """
    if not of.n:
        return bootstrap.missing(bootstrap.EMPTY)
    gaps = of.copies[:, None] - of.controls
    value = of.mean(gaps)
    return of.estimate(value, gaps - value, level)


def adjusted_difference(
    of: Values,
    covariates: Num[np.ndarray, "given covariate"],
    control_covariates: Num[np.ndarray, "given control covariate"],
    level: float = 0.95,
) -> bootstrap.Estimate:
    """The difference at equal covariates: what strata and calipers leave apart is regressed out.

    Gaps of values are regressed on gaps of covariates, a pair a row; the intercept is the
    difference of a copy and a control whose covariates agree.

    Args:
        of: Values of the matches.
        covariates: Of each copy that `values` was given, finite.
        control_covariates: Of each control; ignored where there is none.
        level: Coverage.
    """
    if not of.n:
        return bootstrap.missing(bootstrap.EMPTY)
    mine, theirs = (np.asarray(side)[of.used] for side in (covariates, control_covariates))
    apart = (mine[:, None, :] - theirs)[of.held]
    weight = of.weight
    x = np.column_stack([np.ones(len(weight)), apart])
    # In units of each column's own size, so that the rank of the matrix does not hang on units;
    # what never differs within a pair has no slope.
    scale = np.sqrt(weight @ np.square(x))
    x = x[:, scale > 0] / scale[scale > 0]
    inverse = np.linalg.pinv((x * weight[:, None]).T @ x)
    gaps = (of.copies[:, None] - of.controls)[of.held]
    # The intercept's column was divided by its own size, which is one.
    fitted = inverse @ (x.T @ (weight * gaps))
    deviations = np.zeros(of.held.shape)
    deviations[of.held] = (x @ inverse[0]) * (gaps - x @ fitted)
    return of.estimate(float(fitted[0]), deviations, level)


def cliff(of: Values, level: float = 0.95) -> bootstrap.Estimate:
    """Cliff's delta, ``P(copy > control) - P(copy < control)``.

    The copy and the control are drawn independently: a copy from all matched copies alike, a
    control from all matches alike and then from those of the match. The interval is that of a mean
    of the pairs' contributions to delta, made asymmetric so that it stays within [-1, 1].

    Args:
        of: Values of the matches.
        level: Coverage.
    """
    if not of.n:
        return bootstrap.missing(bootstrap.EMPTY)
    controls = of.controls[of.held]
    above = _excess_below(of.copies, controls, of.weight)
    below = np.zeros(of.held.shape)
    below[of.held] = _excess_below(controls, of.copies, np.full(of.n, 1 / of.n))
    delta = float(above.mean())
    if abs(delta) > 1 - _LAST_BITS:
        delta = math.copysign(1.0, delta)
    # Of a copy: how much more often it is above controls; of a control: how much more often
    # copies are above it.
    estimate = of.estimate(delta, above[:, None] - below - 2 * delta, level)
    if not math.isfinite(estimate.se):
        return estimate
    low, high = _asymmetric(delta, estimate.se**2, estimate.df + 1, level)
    return dataclasses.replace(estimate, low=low, high=high)


def _excess_below(
    x: Float[np.ndarray, " x"], y: Float[np.ndarray, " y"], weight: Float[np.ndarray, " y"]
) -> Float[np.ndarray, " x"]:
    """Of each x: the weight of the y below it minus that of the y above it."""
    order = np.argsort(y, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(weight[order])])
    below, upto = (reached[np.searchsorted(y[order], x, side)] for side in ("left", "right"))
    return below - (reached[-1] - upto)


def _asymmetric(delta: float, variance: float, size: float, level: float) -> tuple[float, float]:
    """The interval of Feng and Cliff 2004, doi:10.22237/jmasm/1099267440, with t for z."""
    t = float(stats.t.ppf(0.5 + level / 2, max(size - 1, 1.0)))
    if abs(delta) >= 1:
        # No overlap: the variance vanishes, but a finite sample proves no certainty.
        other = (size - t * t) / (size + t * t)
        return (other, 1.0) if delta > 0 else (-1.0, -other)
    scale = 1 - delta * delta + t * t * variance
    reach = t * math.sqrt(variance * ((1 - delta * delta) ** 2 + t * t * variance))
    centre = delta - delta**3
    return max(-1.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def standardized_difference(of: Values) -> float:
    """Mean of the copies minus that of their controls, over the copies' standard deviation.

    How well a covariate is balanced; 0.1 is a usual bound. NaN where the copies do not vary.
    """
    spread = float(of.copies.std(ddof=1)) if of.n > 1 else 0.0
    return of.mean(of.copies[:, None] - of.controls) / spread if spread > 0 else math.nan


def _left_out(
    terms: Float[np.ndarray, " term"],
    weight: Float[np.ndarray, " term"],
    first: Int[np.ndarray, " term"],
    second: Int[np.ndarray, " term"],
) -> Float[np.ndarray, " member"]:
    """How far leaving out each member moves a weighted mean.

    Without member d it moves by ``-T_d / (1 - w_d)``, where T_d and w_d sum the deviations and the
    weights of all terms with d.
    """
    two = first != second
    member = np.concatenate([first, second[two]])
    held = np.bincount(member, np.concatenate([weight, weight[two]]))
    moved = np.bincount(member, np.concatenate([terms, terms[two]]))
    # A member of every term leaves nothing when it is left out: no finite variance is honest.
    return moved / np.maximum(1 - held, 1e-9)


def _shared_member_variance(
    moved: Float[np.ndarray, " member"],
    terms: Float[np.ndarray, " term"],
    first: Int[np.ndarray, " term"],
    second: Int[np.ndarray, " term"],
) -> float:
    """Variance of a weighted mean of which terms that share a member are correlated."""
    two = first != second
    once = np.square(moved).sum()
    # Terms that share both members were counted under each.
    low, high = np.minimum(first, second)[two], np.maximum(first, second)[two]
    _, pair = np.unique(low * len(moved) + high, return_inverse=True)
    both = np.square(np.bincount(pair.reshape(-1), terms[two])).sum()
    # Independent pairs have at least half of the first sum, and one control exactly half of it; by
    # chance the difference can fall below that, and below zero.
    return float(max(once - both, once / 2))
