"""How the tallies of the study's second edition follow from rows; see ``rules``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jaxlens.tally import axes, facts
from jaxlens.tally.addition import ALL, Addition, Products, first_place
from jaxlens.tally.facts import Facts


def _first_exit(rows: Facts) -> Iterator[Addition]:
    for line, cut in enumerate(axes.EXIT_CUTS):
        depth = 1 + first_place(rows.values["rank_input"][:, 1:] > cut, rows.xp)
        yield (line, rows.group, rows.frequency["input"], depth), None, rows.valid


def _half_life(rows: Facts) -> Iterator[Addition]:
    ln = rows.ln["input"]
    half = 2 * ln[:, 1:] >= rows.tables.ln_rank[-1] + ln[:, :1]
    depth = 1 + first_place(half, rows.xp)
    yield (rows.group, rows.frequency["input"], depth), None, rows.valid


def _settled(rows: Facts) -> Iterator[Addition]:
    rank, known = rows.values["rank_final"], rows.present["final"][:, 0]
    for line, cut in enumerate(axes.RETRIEVAL_CUTS):
        stays = rows.xp.flip(rank <= cut, 1).astype(rows.xp.int32)
        run = rows.xp.cumprod(stays, axis=1).sum(1).astype(rows.xp.int32)
        yield (line, rows.group, rank.shape[1] - run), None, known


def _next_rarity(rows: Facts, summed: bool) -> Iterator[Addition]:
    yield (rows.group,), rows.rarity["next"] if summed else None, rows.present["next"][:, 0]


def _retention(rows: Facts, summed: bool) -> Iterator[Addition]:
    if "retention_foreign" in rows.values:
        value = rows.values["retention_foreign"]
        known = ~rows.xp.isnan(value) & rows.valid[:, None]
        amount = facts.fixed_of_stream(value, rows.xp) if summed else None
        yield (rows.group[:, None], rows.layers), amount, known


def _type_regressor(rows: Facts) -> Iterator[Addition]:
    yield (rows.values["token"], ALL), rows.regressors, rows.valid


def _product(rows: Facts) -> Iterator[Addition]:
    x = rows.regressors
    yield (rows.group, ALL, ALL), Products(x, x, rows.xp), rows.valid


def _outcome(rows: Facts) -> Iterator[Addition]:
    products = Products(rows.regressors, rows.ln["input"], rows.xp)
    yield (rows.group, ALL, ALL), products, rows.valid


def _copied(rows: Facts) -> Iterator[Addition]:
    yield (ALL,), rows.regressors, rows.valid & (rows.values["copied"] > 0)


def _foreign_count(rows: Facts) -> Iterator[Addition]:
    token, known = _foreign(rows)
    yield (token,), None, known


def _foreign_sum(rows: Facts) -> Iterator[Addition]:
    token, known = _foreign(rows)
    yield (token, ALL), rows.ln["foreign"], known


def _foreign_square(rows: Facts) -> Iterator[Addition]:
    token, known = _foreign(rows)
    ln = rows.ln["foreign"]
    yield (token, ALL), facts.product(ln, ln, rows.xp), known


def _foreign(rows: Facts) -> tuple[Any, Any]:
    return rows.xp.maximum(rows.values["foreign_token"], 0), rows.present["foreign"][:, 0]


def _weighted(rows: Facts, outcome: bool) -> Iterator[Addition]:
    """Sums of a regression on rarity, of own and of foreign tokens, under each weighting."""
    xp, columns = rows.xp, {"input": "token", "foreign": "foreign_token"}
    for line, name in enumerate(axes.COMPARED):
        token = xp.maximum(rows.values[columns[name]], 0)
        rarity, known = rows.tables.type_rarity[token], rows.present[name][:, 0]
        for kind in range(len(axes.WEIGHTINGS)):
            weight = rows.tables.type_weight[kind][token]
            once = facts.product(weight, rarity, xp)
            where = line, kind, rows.group
            if outcome:
                both = xp.stack([weight.astype(xp.int64), once], axis=1)
                amount = facts.product(both[:, :, None], rows.ln[name][:, None, :], xp)
                yield (*where, ALL, ALL), amount, known
            else:
                twice = facts.product(once, rarity, xp)
                powers = xp.stack([weight.astype(xp.int64), once, twice], axis=1)
                yield (*where, ALL), powers, known


RULES: dict[str, Callable[[Facts], Iterator[Addition]]] = {
    "first_exit_by_group": _first_exit,
    "half_life_by_group": _half_life,
    "settled_by_group": _settled,
    "next_rarity_count": lambda rows: _next_rarity(rows, summed=False),
    "next_rarity_sum": lambda rows: _next_rarity(rows, summed=True),
    "foreign_retention_count": lambda rows: _retention(rows, summed=False),
    "foreign_retention_sum": lambda rows: _retention(rows, summed=True),
    "type_regressor": _type_regressor,
    "regressor_product": _product,
    "regressor_outcome": _outcome,
    "copied_regressor": _copied,
    "foreign_type_count": _foreign_count,
    "foreign_type_sum": _foreign_sum,
    "foreign_type_square": _foreign_square,
    "type_weight_product": lambda rows: _weighted(rows, outcome=False),
    "type_weight_outcome": lambda rows: _weighted(rows, outcome=True),
}
"""What each summed tally of the second edition adds."""
