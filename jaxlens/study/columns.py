"""Columns of the regressions within types: their sums over all rows, and by group of documents."""

from __future__ import annotations

import numpy as np

from jaxlens.study.demeaned import COLUMNS, NAMES, Products
from jaxlens.study.inputs import Inputs
from jaxlens.study.stats import within_type
from jaxlens.tally import axes, bins

RANKED = ("ln_rank_input", *COLUMNS)
"""Columns of the regression of being copied: the rank, and the room that is left for a copy."""

NEEDED = ("type_regressor", "regressor_product", "regressor_outcome", "copied_regressor")
"""Tallies that hold the sums."""


def of_rank(run: Inputs, layer: int) -> tuple[within_type.Sums, within_type.Groups | None]:
    """Ln rank_input of a layer as the outcome of ``demeaned.NAMES``."""
    sums = _sums(run, layer, NAMES)
    if (within := run.within) is None:
        return sums, None
    n = len(NAMES)  # the first of the columns
    groups = within_type.Groups(within.xtx[:, :n, :n], within.xty[:, :n, layer], within.count)
    return sums, _about_own_means(within, groups, sums)


def of_copied(run: Inputs, layer: int) -> tuple[within_type.Sums, within_type.Groups | None]:
    """Whether a position is copied later, as the outcome of ``RANKED``."""
    ranks = _sums(run, layer, COLUMNS)
    copied = run.tallies["type_copied"].astype(np.float64)
    x = run.tallies["copied_regressor"][_places(COLUMNS)]
    sums = within_type.Sums(
        xtx=np.block([[np.array(ranks.yty), ranks.xty], [ranks.xty[:, None], ranks.xtx]]),
        xty=np.array([run.tallies["copied_outcome"][layer], *x]) / bins.ONE,
        yty=float(copied.sum()),
        type_counts=ranks.type_counts,
        type_x=np.column_stack([ranks.type_y, ranks.type_x]),
        type_y=copied,
    )
    if run.within is None:
        return sums, None
    groups = _groups_of_copied(run.within, layer)
    return sums, _about_own_means(run.within, groups, sums)


def _about_own_means(
    within: Products, groups: within_type.Groups, sums: within_type.Sums
) -> within_type.Groups:
    """Products about means of all rows stay, those about a table's are moved to them."""
    return groups if within.own_means else within_type.about_own_means(groups, sums)


def _groups_of_copied(within: Products, layer: int) -> within_type.Groups:
    n = len(RANKED)
    xtx = np.empty((len(within.count), n, n))
    xtx[:, 0, 0] = within.yty[:, layer]
    xtx[:, 0, 1:] = xtx[:, 1:, 0] = within.xty[:, :, layer]
    xtx[:, 1:, 1:] = within.xtx
    xty = np.column_stack([within.ytc[:, layer], within.xtc])
    return within_type.Groups(xtx, xty, within.count)


def _sums(run: Inputs, layer: int, names: tuple[str, ...]) -> within_type.Sums:
    """Ln rank_input of a layer as the outcome of some columns."""
    columns = _places(names)
    products = run.tallies["regressor_product"].sum(0) / bins.ONE
    return within_type.Sums(
        xtx=products[np.ix_(columns, columns)],
        xty=run.tallies["regressor_outcome"].sum(0)[columns, layer] / bins.ONE,
        yty=float(run.tallies["outcome_square"][:, layer].sum() / bins.ONE),
        type_counts=run.tallies["type_count"],
        type_x=run.tallies["type_regressor"][:, columns] / bins.ONE,
        type_y=run.tallies["type_sum"][:, layer] / bins.ONE,
    )


def _places(names: tuple[str, ...]) -> list[int]:
    return [axes.REGRESSORS.index(name) for name in names]
