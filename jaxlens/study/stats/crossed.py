"""Excess preservation on rarity and its square, with crossed effects of token types and documents.

Each sampled position gives two observations of minus ln rank: of the token that was read there,
``r = 1``, and of a token of another document, ``r = 0``. With x the rarity of the observed type
less a fixed centre ::

    -ln rank = b0 + b1 x + b2 x^2 + r (b3 + b4 x + b5 x^2 + b6 m + b7 s) + type + group + rest

where a type has one effect where it was read and one where it was not, correlated, and so has a
group of documents. m and s are the means of x and of x^2 over all tokens of the document: without
them, a document of rare tokens that keeps more of whatever it holds would pass for an effect of
their rarity (Mundlak). b4 is the slope of the excess preservation on rarity at the centre, b5 its
bend. **Positive b4: rarer tokens are kept more; positive b5: the slope rises with rarity.**

The estimate is generalised least squares at the variances of ``components``. They set weights
alone: the estimate is a fixed linear function of the outcomes, whose error is a sum over
observations, and the interval asks what each type and each group of documents adds to it, whatever
the law of their effects and of the rest. The variance is that of types plus that of groups, less
that of the cells of both, which are in either.

Reference:
    Mundlak 1978, doi:10.2307/1913646; Cameron, Gelbach and Miller 2011,
    doi:10.1198/jbes.2010.07136 (two-way clusters); Pustejovsky and Tipton 2018,
    doi:10.1080/07350015.2016.1247004 (CR2: robust variances about a working model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxlens.study.stats import bootstrap, components, freedom

MIN_TYPES = 50
"""With fewer token types in the sample there is no number."""

MIN_EFFECTIVE_TYPES = 5
"""With a smaller effective number of types there is no interval: one of them decides too much."""

FEW_TYPES = f"fewer than {MIN_TYPES} token types in the sample"
FEW_EFFECTIVE_TYPES = "effectively too few token types"
ALIKE = "ranks or rarities do not vary in the sample"

NAMES = ("crossed_rarity", "crossed_rarity_squared")
"""Coefficients of interest, b4 and b5."""

LEAST_BEYOND = 1 / 8
"""Groups less cells may be negative by chance; they take at most this share of the cells off the
variance. Planted data decided: with none intervals are too wide where documents hardly matter, with
more too short where few of them do."""

_THEIRS = slice(4, 6)
"""Their places among the fixed effects."""


class Rows(NamedTuple):
    """Sampled positions: what was read there, and a token of another document.

    Attributes:
        token: Numbers of the types.
        rarity: Of the types, less the centre, nat.
        level: Of the document: means of this rarity and of its square over the tokens read there.
        group: Groups of documents.
    """

    token: Int[np.ndarray, "own_foreign position"]
    rarity: Float[np.ndarray, "own_foreign position"]
    level: Float[np.ndarray, "position power"]
    group: Int[np.ndarray, " position"]


class Moved(NamedTuple):
    """How much each cluster moves the coefficients.

    Attributes:
        number: What the clusters are called.
        by: What it adds to the coefficients.
        share: Part in what is known of the coefficients.
    """

    number: Int[np.ndarray, " cluster"]
    by: Float[np.ndarray, "cluster coefficient"]
    share: Float[np.ndarray, "cluster coefficient"]


class Fit(NamedTuple):
    """Estimates of `NAMES`, see `estimate`.

    Attributes:
        value: In nat a nat, and nat a squared nat; NaN where there is none.
        types: What each token type does.
        groups: What each group of documents does.
        cells: What each type in each group does.
        n: Positions.
        note: Why there is no number, or empty.
    """

    value: Float[np.ndarray, " coefficient"]
    types: Moved
    groups: Moved
    cells: Moved
    n: int
    note: str = ""


def columns(rows: Rows) -> Float[np.ndarray, "observation effect"]:
    """Fixed effects of the own observations, and then of the foreign ones."""
    x = rows.rarity.reshape(-1)
    powers = np.stack([np.ones_like(x), x, x * x], axis=1)
    read = np.repeat([1.0, 0.0], rows.group.size)[:, None]
    level = np.concatenate([rows.level, np.zeros_like(rows.level)])
    return np.concatenate([powers, read * powers, level], axis=1)


def fit(
    rows: Rows, design: components.Design, ln_rank: Float[np.ndarray, "own_foreign position"]
) -> Fit:
    """Coefficients of one layer.

    Args:
        rows: Sampled positions.
        design: Of them, the same at all layers.
        ln_rank: Of the tokens that were read, and of those of other documents, nat.
    """
    if len(design.types) < MIN_TYPES:
        return _without(rows, design, FEW_TYPES)
    x, y = columns(rows), -ln_rank.reshape(-1)
    if np.linalg.matrix_rank(x) < x.shape[1] or not np.ptp(y) > 0:
        return _without(rows, design, ALIKE)
    w = components.weigh(design, components.estimate(design, x, y), x)
    inverse = np.linalg.inv(w.T @ x)
    beta = inverse @ (w.T @ y)
    levers = w @ inverse[_THEIRS].T
    added = levers * (y - x @ beta)[:, None]
    # The column less what the others explain of it, over the variance that is left.
    known = levers * (x @ inverse[:, _THEIRS]) / np.diag(inverse)[_THEIRS]
    types, groups = (_influence(one, added, known) for one in (design.types, design.groups))
    cells = design.cells.sums(added)
    both = Moved(design.cells.number, cells, np.ones_like(cells))
    return Fit(beta[_THEIRS], types, groups, both, rows.group.size)


def _without(rows: Rows, design: components.Design, note: str) -> Fit:
    nothing = np.zeros((0, len(NAMES)))
    none = Moved(np.zeros(0, np.int64), nothing, nothing)
    count = design.groups.count.sum(1)[:, None] * np.ones(len(NAMES))
    groups = Moved(design.groups.number, np.full(count.shape, np.nan), count)
    return Fit(np.full(len(NAMES), np.nan), none, groups, none, rows.group.size, note)


def _influence(
    clusters: components.Clusters,
    added: Float[np.ndarray, "observation coefficient"],
    known: Float[np.ndarray, "observation coefficient"],
) -> Moved:
    """What each cluster adds, its residuals as large as they were before the fit followed them.

    Args:
        clusters: Token types, or groups of documents.
        added: What the residual of each observation adds to the coefficients.
        known: What each observation is of all that is known of them, in all 1.
    """
    share = np.clip(clusters.sums(known), 0.0, 1.0)
    left = np.sqrt(np.maximum(1 - share, 1e-9))
    return Moved(clusters.number, clusters.sums(added) / left, share)


def estimate(found: Fit, coefficient: int, level: float = bootstrap.LEVEL) -> bootstrap.Estimate:
    """A coefficient with its interval.

    Args:
        found: What `fit` returned.
        coefficient: Its place in `NAMES`.
        level: Coverage.

    Returns:
        NaN with a note where too few types or documents are there.
    """
    return difference(found, [], coefficient, level)


def difference(
    found: Fit, others: Sequence[Fit], coefficient: int, level: float = bootstrap.LEVEL
) -> bootstrap.Estimate:
    """A coefficient less the mean of others, paired by token types and by groups of documents.

    Args:
        found: What `fit` returned of a run.
        others: The same of others; none for the coefficient itself.
        coefficient: Its place in `NAMES`.
        level: Coverage.
    """
    fits = [(found, 1.0), *((one, -1 / len(others)) for one in others)]
    value = sum(times * float(one.value[coefficient]) for one, times in fits)
    clusters = len(found.groups.number)
    note = next((one.note for one, _ in fits if one.note), "")
    if note:
        return bootstrap.missing(note, n=found.n, clusters=clusters)
    types, groups, cells = (
        _added([(getattr(one, name), times) for one, times in fits], coefficient)
        for name in ("types", "groups", "cells")
    )
    sizes = [float(bootstrap.effective(share)) for _, share in (types, groups)]
    if bootstrap.too_few(clusters, sizes[1]):
        return bootstrap.missing(bootstrap.TOO_FEW, value, found.n, clusters)
    if sizes[0] < MIN_EFFECTIVE_TYPES:
        return bootstrap.missing(FEW_EFFECTIVE_TYPES, value, found.n, clusters)
    by_type, by_group, by_cell = (float(by @ by) for by, _ in (types, groups, cells))
    beyond = max(by_group - by_cell, -LEAST_BEYOND * by_cell)
    variance = max(by_type + beyond, LEAST_BEYOND * by_cell)
    # A part that adds nothing does not make the variance less sure either.
    parts = [(types[0], by_type, sizes[0])]
    parts += [(groups[0], by_group, sizes[1])] if beyond > 0 else []
    unsure = sum(
        part**2 / freedom.of_influences(moved, size, freedom.JACKKNIFE_FACTOR)
        for moved, part, size in parts
    )
    df = variance**2 / unsure if unsure > 0 else sizes[1] - 1
    return bootstrap.t_interval(value, math.sqrt(variance), df, level, found.n, clusters)


def _added(
    parts: Sequence[tuple[Moved, float]], coefficient: int
) -> tuple[Float[np.ndarray, " cluster"], Float[np.ndarray, " cluster"]]:
    """Sums over runs of what each cluster moves, and of its shares."""
    number = np.concatenate([one.number for one, _ in parts])
    by = np.concatenate([times * one.by[:, coefficient] for one, times in parts])
    share = np.concatenate([abs(times) * one.share[:, coefficient] for one, times in parts])
    _, place = np.unique(number, return_inverse=True)
    return np.bincount(place, by), np.bincount(place, share)
