"""Sums over the tokens that two runs have in common, and the estimates that follow from them.

Sums are kept by group of documents, so that memory does not grow with the text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from jaxlens.study import curves
from jaxlens.study.stats import bootstrap, correlation
from jaxlens.tally import bins as binning

BINS = 32
"""Bins of each variable in a rank correlation."""

GROUPS = 64
"""Groups of documents in a rank correlation: a table of bins for each of them is held."""

Edges = Float[np.ndarray, "side pair edge"]

CONSTANT = "the same in every document"


class Sums:
    """What is added up over tokens, by group of documents and pair of layers."""

    def __init__(
        self, names: Sequence[str], n_pairs: int, best: bool, correlated: Sequence[str]
    ) -> None:
        shape = (binning.GROUPS, n_pairs)
        self.first = {name: np.zeros(shape) for name in names}
        self.second = {name: np.zeros(shape) for name in names}
        self.count = {name: np.zeros(shape, np.int64) for name in names}
        self.equal = np.zeros((2, *shape), np.int64) if best else None
        cells = (GROUPS, n_pairs, BINS * BINS)
        self.joint = {n: np.zeros(cells, np.int32) for n in names if n in correlated}

    def add(
        self,
        name: str,
        group: Int[np.ndarray, " row"],
        one: Float[np.ndarray, "row pair"],
        two: Float[np.ndarray, "row pair"],
        edges: Edges | None,
    ) -> None:
        """Adds rows, of ranks their logarithms; a token counts where both have a value."""
        real = np.isfinite(one) & np.isfinite(two)
        for pair in range(one.shape[1]):
            mine = real[:, pair]
            a, b, where = one[mine, pair], two[mine, pair], group[mine]
            for total, values in ((self.first, a), (self.second, b)):
                total[name][:, pair] += np.bincount(where, values, binning.GROUPS)
            self.count[name][:, pair] += np.bincount(where, minlength=binning.GROUPS)
            if edges is None:
                continue
            bins = [
                np.searchsorted(edges[side, pair], values, "right")
                for side, values in enumerate((a, b))
            ]
            cells = bins[0] * BINS + bins[1]
            flat = np.bincount(where % GROUPS * BINS**2 + cells, minlength=GROUPS * BINS**2)
            self.joint[name][:, pair] += flat.reshape(GROUPS, BINS**2).astype(np.int32)

    def agree(
        self,
        group: Int[np.ndarray, " row"],
        one: Int[np.ndarray, "row pair"],
        two: Int[np.ndarray, "row pair"],
    ) -> None:
        """Counts where the best tokens are known and equal."""
        assert self.equal is not None
        known = (one >= 0) & (two >= 0)
        for total, counted in zip(self.equal, ((one == two) & known, known), strict=True):
            for pair in range(one.shape[1]):
                total[:, pair] += np.bincount(group[counted[:, pair]], minlength=binning.GROUPS)


def mean_differences(sums: Sums, name: str) -> list[bootstrap.Estimate]:
    """Mean of the paired differences of a quantity, by pair of layers."""
    return curves.by_layer(sums.first[name] - sums.second[name], sums.count[name], 1)


def agreements(sums: Sums) -> list[bootstrap.Estimate]:
    """Share of the tokens with the same best token, by pair of layers."""
    assert sums.equal is not None
    return [_share(estimate) for estimate in curves.by_layer(sums.equal[0], sums.equal[1], 1)]


def rank_correlation(joint: Num[np.ndarray, "group bins"]) -> bootstrap.Estimate:
    """Spearman's coefficient of two binned variables, with an interval on Fisher's scale.

    Args:
        joint: Tokens by group of documents and cell of a table of ``BINS`` by ``BINS`` bins.
    """

    def fisher(cells: np.ndarray) -> Float[np.ndarray, " replica"]:
        rho = correlation.spearman(cells.reshape(-1, BINS, BINS))
        with np.errstate(divide="ignore"):
            return np.arctanh(rho)

    estimate = bootstrap.bootstrap(
        fisher, (joint,), joint.sum(axis=1), weight=bootstrap.weights(len(joint))
    )
    if estimate.note == bootstrap.EMPTY or not math.isfinite(estimate.value):
        rho = float(correlation.spearman(joint.sum(axis=0).reshape(BINS, BINS)))
        why = CONSTANT if math.isfinite(rho) else "constant in a run"
        return bootstrap.missing(why, rho, estimate.n, estimate.clusters)
    value, low, high = (math.tanh(x) for x in (estimate.value, estimate.low, estimate.high))
    se = estimate.se * (1 - value * value)
    return dataclasses.replace(estimate, value=value, low=low, high=high, se=se)


def _share(estimate: bootstrap.Estimate) -> bootstrap.Estimate:
    """Ends between 0 and 1, where the truth is, so that nothing is lost."""
    if math.isnan(estimate.low):
        return estimate
    return dataclasses.replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))


def quantiles(values: Float[np.ndarray, "row pair"]) -> Float[np.ndarray, "pair edge"]:
    """Edges of bins that hold about as many values each; those of no values are never reached."""
    edges = np.full((values.shape[1], BINS - 1), np.inf)
    shares = np.arange(1, BINS) / BINS
    for pair, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            edges[pair] = np.quantile(known, shares, method="inverted_cdf")
    return edges
