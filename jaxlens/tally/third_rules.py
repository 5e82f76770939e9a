"""How the tallies that the third edition adds follow from rows; see ``rules``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jaxlens.tally import axes, bins, facts
from jaxlens.tally.addition import ALL, Addition, Products
from jaxlens.tally.facts import Facts

_PLACES = [axes.REGRESSORS.index(name) for name in axes.VARYING]


def _columns(rows: Facts) -> Any:
    """Columns of ``axes.WITHIN`` less the means of their types, int64 ``[row, within]``."""
    xp, means = rows.xp, rows.tables.type_means
    copied = (rows.values["copied"] > 0).astype(xp.int32) * bins.ONE
    columns = xp.concatenate([rows.regressors[:, xp.asarray(_PLACES)], copied[:, None]], axis=1)
    return columns.astype(xp.int64) - means.column[rows.values["token"]].astype(xp.int64)


def _ln_rank(rows: Facts) -> Any:
    """Ln rank_input less the means of the types, int64 ``[row, layer]``."""
    means = rows.tables.type_means.ln_rank[rows.values["token"]].astype(rows.xp.int64)
    return rows.ln["input"].astype(rows.xp.int64) - means


def _product(rows: Facts) -> Iterator[Addition]:
    x = _columns(rows)
    yield (rows.group, ALL, ALL), Products(x, x, rows.xp), rows.valid


def _outcome(rows: Facts) -> Iterator[Addition]:
    products = Products(_columns(rows), _ln_rank(rows), rows.xp)
    yield (rows.group, ALL, ALL), products, rows.valid


def _square(rows: Facts) -> Iterator[Addition]:
    ln = _ln_rank(rows)
    yield (rows.group, ALL), facts.product(ln, ln, rows.xp), rows.valid


RULES: dict[str, Callable[[Facts], Iterator[Addition]]] = {
    "within_product": _product,
    "within_outcome": _outcome,
    "within_square": _square,
}
"""What each tally that the third edition adds to the second takes from a row."""
