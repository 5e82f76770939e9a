"""The study's tallies from stored rows: the same rules as on the device, added by NumPy.

A run with ``--tallies study`` has them; of any other run with full rows they are computed here, to
the same integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer

from jaxlens import errors, schema
from jaxlens.store import corpus_index, reader, token_counts_file
from jaxlens.tally import (
    addition,
    axes,
    bins,
    definitions,
    facts,
    first_edition,
    regressors,
    rules,
    sampling,
)

ROWS = 16_384
"""Rows that are held at once."""

NEEDED = (
    *(f"rank_{name}" for name in schema.REFERENCES),
    *("logp_input", "logp_next", "logp_final"),
    *("kl_final", "kl_input", "kl_final_matched", "entropy", "top_id"),
    *schema.PER_TOKEN,
    *schema.COLUMNS,
)
"""Rows without which nothing can be folded."""

Tallies = dict[str, Int64[np.ndarray, "..."]]


def tallies(run: reader.Run) -> Tallies:
    """The study's tallies of a run: its own, or those of its rows.

    A run of the first edition that keeps no rows has those of that edition alone; what is
    estimated from the others has lines without a number, see ``inputs.Inputs.lacks``.

    Args:
        run: Finished run.

    Raises:
        ConfigError: It has neither; the hint says which options record them.
        DataError: It is damaged.
    """
    own = _kept(run)
    if own is None:
        require_rows(run)
        own = of_rows(run)
    return own


def require(run: reader.Run) -> None:
    """Refuses a run that `tallies` would refuse, before its rows are folded.

    Raises:
        ConfigError: It has neither the tallies nor the rows.
    """
    if _kept(run) is None:
        require_rows(run)


def _kept(run: reader.Run) -> Tallies | None:
    """The study's tallies that a run keeps; None where they are of its rows."""
    own = _own(run, definitions.STUDY)
    if own is None and not all(name in run for name in NEEDED):
        own = _own(run, first_edition.FIRST)
    return own


def _own(run: reader.Run, edition: tuple[definitions.Tally, ...]) -> Tallies | None:
    names, kept = {tally.name for tally in edition}, set(run.tally)
    if not names <= kept:
        return None
    names |= {tally.name for tally in definitions.WITHIN} & kept
    return {name: run.tally[name] for name in names}


def require_rows(run: reader.Run) -> None:
    """Refuses a run from whose rows the tallies cannot be folded.

    Raises:
        ConfigError: Naming what it lacks.
    """
    lacking = [name for name in NEEDED if name not in run]
    if lacking:
        raise errors.ConfigError(
            f"{run.path} has no rows of {', '.join(lacking[:3])}"
            + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""),
            "record them with --rows full, or the totals with --tallies study",
        )


def of_rows(run: reader.Run, documents: Bool[np.ndarray, " document"] | None = None) -> Tallies:
    """Folds all rows of a run, a batch at a time.

    Args:
        run: With the rows of ``NEEDED``; those of ``axes.MEASURES`` count
            where there are any.
        documents: Those whose rows count; all by default.
    """
    architecture = run.spec["model"]["architecture"]
    sizes = architecture["n_layer"] + 1, architecture["vocab_size"]
    totals = {
        t.name: definitions.empty(t.name, definitions.shape(t, *sizes)) for t in definitions.STUDY
    }
    lookup = facts.tables(sizes[1], token_counts_file.of_run(run))
    length = int(run.spec["plan"]["length"])
    measured = (*axes.MEASURES, "retention_foreign")
    more = [name for name in measured if name in run and name not in NEEDED]
    for batch in run.batches((*NEEDED, *more), rows=ROWS):
        values = prepare(batch, run.corpus.documents, length)
        real = np.ones(len(batch["token"]), bool)
        add(totals, values, real if documents is None else documents[batch["document"]], lookup)
    return totals


def by_group(
    group: Int[np.ndarray, " row"],
) -> Iterator[tuple[int, Int[np.ndarray, " part"]]]:
    """Each group that has rows, and their places."""
    if not len(group):  # `np.split` would make one empty part.
        return
    order = np.argsort(group, kind="stable")
    held, first = np.unique(group[order], return_index=True)
    yield from zip(held.tolist(), np.split(order, first[1:]), strict=True)


def prepare(
    batch: Mapping[str, np.ndarray], documents: corpus_index.Documents, length: int
) -> dict[str, np.ndarray]:
    """Rows as `facts.of_rows` takes them.

    Args:
        batch: Rows of a run, ids signed.
        documents: Of its corpus.
        length: Longest context of its plan.
    """
    values = dict(batch)
    for name in schema.COLUMNS:
        values[name] = values[name].astype(np.int32)
    for name in (name for name in batch if name.startswith("rank_")):
        values[name] = values[name].astype(np.int32)
    mine = documents.hash[batch["document"]]
    size = np.diff(documents.start)[batch["document"]]
    values["room"] = regressors.room(size, batch["offset"], batch["position"], length)
    values["final_token"] = batch["top_id"][:, -1, 0].astype(np.int32)
    values["group"] = bins.group_of(mine)
    values["key"] = sampling.key_of(mine, batch["offset"])
    return values


def add(
    totals: Tallies,
    values: Mapping[str, np.ndarray],
    real: Bool[np.ndarray, " row"],
    lookup: facts.Tables,
) -> None:
    """Adds rows to tallies, which are altered."""
    rows = facts.of_rows(values, real, lookup, np)
    for name, total in totals.items():
        if definitions.BY_NAME[name].merge == "bottom_k":
            lines, candidate = rules.sampled(name, rows)
            both = np.concatenate([total, lines[candidate]])
            total[...] = sampling.lowest(both, len(total))
        else:
            _add(total, rules.RULES[name](rows))


def _add(total: Int64[np.ndarray, "..."], additions: Iterable[addition.Addition]) -> None:
    for places, amount, where in additions:
        if (n := addition.lines(places)) is not None:
            _add_lines(total, places[:n], amount[where], where)
            continue
        *indices, mask = np.broadcast_arrays(*places, where)
        flat = np.ravel_multi_index([index[mask] for index in indices], total.shape)
        if amount is None:
            total += np.bincount(flat, minlength=total.size).reshape(total.shape)
        else:
            amounts = np.broadcast_to(amount, mask.shape)[mask].astype(np.int64)
            np.add.at(total.reshape(-1), flat, amounts)


def _add_lines(
    total: Int64[np.ndarray, "..."],
    places: tuple[Any, ...],
    amount: Integer[np.ndarray, "row ..."],
    where: Bool[np.ndarray, " row"],
) -> None:
    """Adds whole lines, those of one place together."""
    if not len(amount):
        return
    lines = total.reshape(-1, *total.shape[len(places) :])
    indices = [np.broadcast_to(place, where.shape)[where] for place in places]
    cell = np.ravel_multi_index(indices, total.shape[: len(places)]) if places else None
    if cell is None:
        lines += amount.sum(0, dtype=np.int64)
        return
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)
    lines[cells] += np.add.reduceat(amount[order].astype(np.int64), first, axis=0)
