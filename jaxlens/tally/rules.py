"""How each tally of the study follows from rows: written once, for JAX and for NumPy.

A rule turns the integers of ``facts`` into additions: places of a tally, the amounts that are added
there, and where they count. A device and a reader of the stored rows add the same numbers. The
rules of later editions are in ``second_rules`` and ``third_rules``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jaxlens import schema
from jaxlens.tally import axes, bins, definitions, facts, sampling, second_rules, third_rules
from jaxlens.tally.addition import Addition, first_place
from jaxlens.tally.facts import Facts


def _curve(rows: Facts, name: str) -> Any:
    """A quantity in fixed point; of a rank its ln."""
    if name.startswith("rank_"):
        return rows.ln[name.removeprefix("rank_")]
    to_fixed = facts.fixed_of_stream if name in axes.OF_STREAM else facts.fixed
    return to_fixed(rows.values[name], rows.xp)


def _known(rows: Facts, name: str) -> Any:
    if name.startswith("rank_"):
        return rows.present[name.removeprefix("rank_")]
    return ~rows.xp.isnan(rows.values[name]) & rows.valid[:, None]


def _rank_histogram(rows: Facts) -> Iterator[Addition]:
    for line, name in enumerate(schema.REFERENCES):
        where = (line, rows.layers, rows.frequency[name][:, None], rows.stratum[:, None])
        yield (*where, rows.rank_bin[name]), None, rows.present[name]


def _joint_histogram(rows: Facts) -> Iterator[Addition]:
    cell = rows.fine_frequency[:, None], rows.fine_surprisal[:, None]
    yield (rows.layers, *cell, rows.rank_bin["input"]), None, rows.present["input"]


def _preservation_sum(rows: Facts) -> Iterator[Addition]:
    interior = rows.ln["input"][:, 1:-1].astype(rows.xp.int64).sum(1)
    yield (rows.fine_frequency, rows.fine_surprisal), interior, rows.valid


def _type_count(rows: Facts) -> Iterator[Addition]:
    yield (rows.values["token"],), None, rows.valid


def _type_sum(rows: Facts) -> Iterator[Addition]:
    cell = rows.values["token"][:, None], rows.layers
    yield cell, rows.ln["input"], rows.present["input"]


def _type_square(rows: Facts) -> Iterator[Addition]:
    ln = rows.ln["input"]
    cell = rows.values["token"][:, None], rows.layers
    yield cell, facts.product(ln, ln, rows.xp), rows.present["input"]


def _places(rows: Facts) -> Any:
    return rows.xp.arange(len(axes.COVARIATES), dtype=rows.xp.int32)


def _type_covariate(rows: Facts) -> Iterator[Addition]:
    cell = rows.values["token"][:, None], _places(rows)[None]
    yield cell, rows.covariates, rows.valid[:, None]


def _covariate_product(rows: Facts) -> Iterator[Addition]:
    one, other = rows.covariates[:, :, None], rows.covariates[:, None, :]
    places = _places(rows)
    where = rows.group[:, None, None], places[None, :, None], places[None, None, :]
    yield where, facts.product(one, other, rows.xp), rows.valid[:, None, None]


def _covariate_outcome(rows: Facts) -> Iterator[Addition]:
    one, other = rows.covariates[:, :, None], rows.ln["input"][:, None, :]
    where = rows.group[:, None, None], _places(rows)[None, :, None], rows.layers[:, None, :]
    yield where, facts.product(one, other, rows.xp), rows.valid[:, None, None]


def _outcome_square(rows: Facts) -> Iterator[Addition]:
    ln = rows.ln["input"]
    yield (rows.group[:, None], rows.layers), facts.product(ln, ln, rows.xp), rows.valid[:, None]


def _type_copied(rows: Facts) -> Iterator[Addition]:
    yield (rows.values["token"],), None, _copied(rows)


def _copied_covariate(rows: Facts) -> Iterator[Addition]:
    yield (_places(rows)[None],), rows.covariates, _copied(rows)[:, None]


def _copied_outcome(rows: Facts) -> Iterator[Addition]:
    yield (rows.layers,), rows.ln["input"], _copied(rows)[:, None]


def _copied(rows: Facts) -> Any:
    return rows.valid & (rows.values["copied"] > 0)


def _measured(rows: Facts, groups: Any, summed: bool) -> Iterator[Addition]:
    for line, name in enumerate(axes.MEASURES):
        if name in rows.values:
            amount = _curve(rows, name) if summed else None
            yield (line, groups[:, None], rows.layers), amount, _known(rows, name)


def _frequency_norm(rows: Facts) -> Iterator[Addition]:
    yield (
        (rows.frequency["input"],),
        facts.fixed(rows.values["embedding_norm"], rows.xp),
        rows.valid,
    )


def _excess(rows: Facts, kind: str) -> Iterator[Addition]:
    middle = definitions.mid_depth(rows.layers.shape[1])
    for line, name in enumerate(axes.COMPARED):
        known, cell = rows.present[name], (line, rows.group, rows.frequency[name])
        if kind == "count":
            yield cell, None, known[:, 0]
        elif kind == "histogram":
            yield (*cell, rows.rank_bin[name][:, middle]), None, known[:, 0]
        else:
            wide = line, rows.group[:, None], rows.frequency[name][:, None], rows.layers
            yield wide, rows.ln[name], known


def _nearer(rows: Facts) -> Any:
    return rows.values["kl_final"] < rows.values["kl_input"]


def _nearer_final(rows: Facts) -> Iterator[Addition]:
    yield (rows.group[:, None], rows.layers), None, _nearer(rows) & rows.valid[:, None]


def _descending(rows: Facts) -> Iterator[Addition]:
    for line, name in enumerate(axes.JUMPS):
        curve = _curve(rows, name)
        lower = (curve[:, 1:] < curve[:, :-1]) & rows.valid[:, None]
        yield (line, rows.group[:, None], rows.layers[:, 1:]), None, lower
        yield (line, rows.group, 0), None, rows.valid


def _divergence_histogram(rows: Facts) -> Iterator[Addition]:
    for line, name in enumerate(axes.DIVERGENCES):
        if name in rows.values:
            bin_ = rows.xp.searchsorted(rows.tables.log_edges, rows.values[name], side="right")
            where = line, rows.layers, rows.frequency["input"][:, None]
            yield (*where, bin_.astype(rows.xp.int32)), None, _known(rows, name)


def _jump_histogram(rows: Facts) -> Iterator[Addition]:
    xp = rows.xp
    for line, name in enumerate(axes.JUMPS):
        curve = _curve(rows, name).astype(xp.int64)
        steps = xp.abs(curve[:, 1:] - curve[:, :-1])
        total = steps.sum(1)
        share = steps[:, 0] * bins.JUMP_BINS // xp.maximum(total, 1)
        bin_ = facts.bin_of(share, bins.JUMP_BINS, xp)
        yield (line, rows.frequency["input"], bin_), None, rows.valid & (total > 0)


def _first_exit(rows: Facts) -> Iterator[Addition]:
    for line, cut in enumerate(axes.EXIT_CUTS):
        depth = 1 + first_place(rows.values["rank_input"][:, 1:] > cut, rows.xp)
        yield (line, rows.frequency["input"], depth), None, rows.valid


def _half_life(rows: Facts) -> Iterator[Addition]:
    ln = rows.ln["input"]
    half = 2 * ln[:, 1:] >= rows.tables.ln_rank[-1] + ln[:, :1]
    yield (rows.frequency["input"], 1 + first_place(half, rows.xp)), None, rows.valid


def _flip(rows: Facts) -> Iterator[Addition]:
    yield (rows.frequency["input"], first_place(_nearer(rows), rows.xp)), None, rows.valid


def _retrieval(rows: Facts) -> Iterator[Addition]:
    n_layers = rows.layers.shape[1]
    for line, name in enumerate(axes.TARGETS):
        rank, known = rows.values[f"rank_{name}"], rows.present[name][:, 0]
        for cut_line, cut in enumerate(axes.RETRIEVAL_CUTS):
            stays = rows.xp.flip(rank <= cut, 1).astype(rows.xp.int32)
            run = rows.xp.cumprod(stays, axis=1).sum(1).astype(rows.xp.int32)
            yield (line, cut_line, rows.frequency[name], n_layers - run), None, known


RULES: dict[str, Callable[[Facts], Iterator[Addition]]] = {
    "rank_histogram": _rank_histogram,
    "joint_histogram": _joint_histogram,
    "preservation_sum": _preservation_sum,
    "type_count": _type_count,
    "type_sum": _type_sum,
    "type_square": _type_square,
    "type_covariate": _type_covariate,
    "covariate_product": _covariate_product,
    "covariate_outcome": _covariate_outcome,
    "outcome_square": _outcome_square,
    "type_copied": _type_copied,
    "copied_covariate": _copied_covariate,
    "copied_outcome": _copied_outcome,
    "group_count": lambda rows: _measured(rows, rows.group, summed=False),
    "group_sum": lambda rows: _measured(rows, rows.group, summed=True),
    "frequency_count": lambda rows: _measured(rows, rows.frequency["input"], summed=False),
    "frequency_sum": lambda rows: _measured(rows, rows.frequency["input"], summed=True),
    "frequency_norm": _frequency_norm,
    "excess_count": lambda rows: _excess(rows, "count"),
    "excess_sum": lambda rows: _excess(rows, "sum"),
    "excess_histogram": lambda rows: _excess(rows, "histogram"),
    "nearer_final": _nearer_final,
    "descending": _descending,
    "divergence_histogram": _divergence_histogram,
    "jump_histogram": _jump_histogram,
    "first_exit": _first_exit,
    "half_life": _half_life,
    "flip": _flip,
    "retrieval": _retrieval,
    **second_rules.RULES,
    **third_rules.RULES,
}
"""What each summed tally of the study adds."""


def sampled(name: str, rows: Facts) -> tuple[Any, Any]:
    """Lines of a ``bottom_k`` tally, int64 ``[row, field]``, and which rows are candidates."""
    xp, values = rows.xp, rows.values
    known = {name: values[name] for name in sampling.FIELDS if name in values}
    known |= {
        "rarity_next": rows.rarity["next"],
        "surprisal": facts.fixed(values["surprisal"], xp),
        "logp_next_last": facts.fixed(values["logp_next"][:, -1], xp),
        "entropy_last": facts.fixed(values["entropy"][:, -1], xp),
        "logp_input_last": facts.fixed(values["logp_input"][:, -1], xp),
    }
    candidate = rows.valid
    if name != "reservoir":
        same = values["copy_token"] == values["next_token"]
        candidate = candidate & (values["next_token"] >= 0) & (same if name == "copies" else ~same)
    if name == "controls":
        known["key"] = sampling.favoured(known["key"], known["logp_next_last"])
    each = [known[field].astype(xp.int64)[:, None] for field in sampling.FIELDS]
    layered = {"kl_final_matched": facts.fixed(values["kl_final_matched"], xp)}
    each += [layered.get(n, values[n]).astype(xp.int64) for n in sampling.LAYER_FIELDS]
    return xp.concatenate(each, axis=1), candidate
