"""Variances of crossed random effects of token types and document groups, and weights from them.

Each observation is of a type and in a group, and on one of two sides: of a token that was read, or
of one that was not. A type has an effect on either side, and so has a group, with a covariance of
two by two each; what is left has a variance of its own on each side.

The variances come from products of residuals, each of which has one expectation whatever the law:
pairs of one type in different groups, pairs in one group of different types, and squares. Closed
forms need no iteration, which could end elsewhere on another machine. Residuals are those of
weighted least squares in which n observations of a type on a side weigh ``n / (n + 1)``, as if half
of the variance were between types, so that a few frequent types do not decide the fit.

The covariance V of all observations is never built. Types do not overlap, so each takes a product
of two by two, and what is left is a matrix over groups alone (Woodbury).

Reference:
    Searle, Casella and McCulloch 1992, Variance Components, doi:10.1002/9780470316856 (moments);
    Henderson 1975, doi:10.2307/2529430 (mixed models).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

LEAST_REST = 0.05
"""Least variance of the rest on a side, as a share of the mean square of both: weights stay finite
where one side hardly varies, as own ranks do at the input layer."""

SIDES = 2


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of the observations.

    Attributes:
        number: What each cluster is called, in increasing order.
        of_row: Place in ``number`` of each observation.
        side: Side of each observation, 0 or 1.
    """

    number: Int[np.ndarray, " cluster"]
    of_row: Int[np.ndarray, " observation"]
    side: Int[np.ndarray, " observation"]

    @classmethod
    def of(
        cls, numbers: Int[np.ndarray, " observation"], side: Int[np.ndarray, " observation"]
    ) -> Clusters:
        """Of what the cluster of each observation is called."""
        number, of_row = np.unique(numbers, return_inverse=True)
        return cls(number, of_row.reshape(-1), side)

    def __len__(self) -> int:
        return len(self.number)

    def sums(
        self, values: Float[np.ndarray, "observation ..."]
    ) -> Float[np.ndarray, "cluster ..."]:
        """Sums of values by cluster."""
        return _sums(self.of_row, len(self), values)

    def by_side(
        self, values: Float[np.ndarray, "observation ..."]
    ) -> Float[np.ndarray, "cluster side ..."]:
        """Sums of values by cluster and side."""
        both = _sums(SIDES * self.of_row + self.side, SIDES * len(self), values)
        return both.reshape(len(self), SIDES, *values.shape[1:])

    @functools.cached_property
    def count(self) -> Float[np.ndarray, "cluster side"]:
        """Observations by side."""
        return self.by_side(np.ones(len(self.of_row)))


def _sums(place: np.ndarray, size: int, values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    sums = np.empty((size, flat.shape[1]))
    for i, column in enumerate(flat.T):
        sums[:, i] = np.bincount(place, column, size)
    return sums.reshape(size, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class Design:
    """Which observations share what.

    Attributes:
        side: 0 where the token was read, 1 where it was not.
        types: Observations by token type.
        groups: By group of documents.
        cells: By both, numbered by the type times 2^32 plus the group.
    """

    side: Int[np.ndarray, " observation"]
    types: Clusters
    groups: Clusters
    cells: Clusters

    @classmethod
    def of(
        cls, token: Int[np.ndarray, "side position"], group: Int[np.ndarray, " position"]
    ) -> Design:
        """Of the types of positions, and their groups; observations are in the order of sides."""
        side = np.repeat(np.arange(SIDES), group.size)
        types, groups = token.reshape(-1).astype(np.int64), np.tile(group, SIDES).astype(np.int64)
        parts = (types, groups, (types << 32) + groups)
        return cls(side, *(Clusters.of(part, side) for part in parts))

    @functools.cached_property
    def counts(self) -> tuple[sparse.csr_array, ...]:
        """Observations by type and group, of each side."""
        shape, found = (len(self.types), len(self.groups)), []
        for side in range(SIDES):
            there = self.side == side
            place = self.types.of_row[there], self.groups.of_row[there]
            found.append(sparse.csr_array((np.ones(there.sum()), place), shape))
        return tuple(found)


class Variances(NamedTuple):
    """Covariances of the effects of a type and of a group on the two sides, and the rest."""

    types: Float[np.ndarray, "side side"]
    groups: Float[np.ndarray, "side side"]
    rest: Float[np.ndarray, " side"]


def estimate(
    design: Design,
    x: Float[np.ndarray, "observation effect"],
    y: Float[np.ndarray, " observation"],
) -> Variances:
    """Variances of an outcome about its fixed effects, see above."""
    weight = 1 / (1 + design.types.count)
    of_row = weight[design.types.of_row, design.side]
    product = (x * of_row[:, None]).T
    left = y - x @ np.linalg.lstsq(product @ x, product @ y, rcond=None)[0]
    types = _of_pairs(design.types, design.cells, weight, left)
    of_group = 1 / np.sqrt(np.maximum(design.groups.count, 1))
    groups = _of_pairs(design.groups, design.cells, of_group, left)
    squares = np.bincount(design.side, of_row * left**2, SIDES)
    squares /= np.bincount(design.side, of_row, SIDES)
    rest = squares - np.diag(types) - np.diag(groups)
    return Variances(types, groups, np.maximum(rest, LEAST_REST * squares.mean()))


def _of_pairs(
    clusters: Clusters,
    cells: Clusters,
    weight: Float[np.ndarray, "cluster side"],
    left: Float[np.ndarray, " observation"],
) -> Float[np.ndarray, "side side"]:
    """Mean product of the residuals of two observations of one cluster, but not of one cell."""
    first = np.unique(cells.of_row, return_index=True)[1]
    of_cell = weight[clusters.of_row[first]]
    sums, among = weight * clusters.by_side(left), of_cell * cells.by_side(left)
    pairs, same = weight * clusters.count, of_cell * cells.count
    number = pairs.T @ pairs - same.T @ same
    product = sums.T @ sums - among.T @ among
    mean = np.divide(product, number, out=np.zeros_like(product), where=number > 1e-9)
    values, vectors = np.linalg.eigh(mean)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def weigh(
    design: Design, variances: Variances, x: Float[np.ndarray, "observation effect"]
) -> Float[np.ndarray, "observation effect"]:
    """``V^-1 x`` of the covariance V that the variances make."""
    rest, groups = variances.rest, design.groups
    load = design.types.count / rest
    shrunk = np.linalg.solve(
        np.eye(SIDES) + variances.types * load[:, None, :],
        np.broadcast_to(variances.types, (len(load), SIDES, SIDES)),
    )

    def of_types_alone(values: np.ndarray) -> np.ndarray:
        """``V^-1`` if groups had no effect."""
        first = values / rest[design.side, None]
        effect = shrunk @ design.types.by_side(first)
        return first - effect[design.types.of_row, design.side] / rest[design.side, None]

    first = of_types_alone(x)
    g = len(groups)
    among = np.empty((g, SIDES, g, SIDES))
    for a, ours in enumerate(design.counts):
        for b, theirs in enumerate(design.counts):
            between = ours.T @ sparse.diags_array(shrunk[:, a, b]) @ theirs
            among[:, a, :, b] = -between.toarray() / (rest[a] * rest[b])
        among[np.arange(g), a, np.arange(g), a] += groups.count[:, a] / rest[a]
    spread = np.kron(np.eye(g), variances.groups)
    sums = groups.by_side(first).reshape(g * SIDES, -1)
    flat = among.reshape(g * SIDES, g * SIDES)
    effect = spread @ np.linalg.solve(np.eye(g * SIDES) + flat @ spread, sums)
    effect = effect.reshape(g, SIDES, -1)[groups.of_row, design.side]
    return first - of_types_alone(effect)
