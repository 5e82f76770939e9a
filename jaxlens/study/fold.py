"""The study's tallies from stored rows: the same rules as on the device, added by NumPy.

A run with ``--tallies study`` has them; of any other run with full rows they are computed here, to
the same integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Int64

from jaxlens import errors, schema
from jaxlens.store import reader
from jaxlens.tally import bins, definitions, rules, sampling

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

    Args:
        run: Finished run.

    Raises:
        ConfigError: It has neither; the hint says which options record them.
        DataError: It is damaged.
    """
    names = {tally.name for tally in definitions.STUDY}
    if names <= set(run.tally):
        return {name: run.tally[name] for name in names}
    require_rows(run)
    return of_rows(run)


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
        run: With the rows of ``NEEDED``; those of ``definitions.MEASURES`` count
            where there are any.
        documents: Those whose rows count; all by default.
    """
    architecture = run.spec["model"]["architecture"]
    sizes = architecture["n_layer"] + 1, architecture["vocab_size"]
    totals = {
        t.name: definitions.nothing(t.name, definitions.shape(t, *sizes)) for t in definitions.STUDY
    }
    lookup = rules.tables(sizes[1], run.corpus.token_counts)
    digest = run.corpus.documents.hash
    more = [name for name in definitions.MEASURES if name in run and name not in NEEDED]
    for batch in run.batches((*NEEDED, *more), rows=ROWS):
        values = prepare(batch, digest)
        real = np.ones(len(batch["token"]), bool)
        add(totals, values, real if documents is None else documents[batch["document"]], lookup)
    return totals


def prepare(batch: Mapping[str, np.ndarray], digest: np.ndarray) -> dict[str, np.ndarray]:
    """Rows as `rules.facts` takes them.

    Args:
        batch: Rows of a run, ids signed.
        digest: Hash of each document.
    """
    values = dict(batch)
    for name in schema.COLUMNS:
        values[name] = values[name].astype(np.int32)
    for name in (name for name in batch if name.startswith("rank_")):
        values[name] = values[name].astype(np.int32)
    mine = digest[batch["document"]]
    values["final_token"] = batch["top_id"][:, -1, 0].astype(np.int32)
    values["group"] = bins.group_of(mine)
    values["key"] = sampling.key_of(mine, batch["offset"])
    return values


def add(
    totals: Tallies,
    values: Mapping[str, np.ndarray],
    real: Bool[np.ndarray, " row"],
    lookup: rules.Tables,
) -> None:
    """Adds rows to tallies, which are altered."""
    facts = rules.facts(values, real, lookup, np)
    for name, total in totals.items():
        if definitions.BY_NAME[name].merge == "bottom_k":
            lines, candidate = rules.sampled(name, facts)
            both = np.concatenate([total, lines[candidate]])
            total[...] = sampling.lowest(both, len(total))
        else:
            _add(total, rules.RULES[name](facts))


def _add(total: Int64[np.ndarray, "..."], additions: Iterable[rules.Addition]) -> None:
    for places, amount, where in additions:
        *indices, mask = np.broadcast_arrays(*places, where)
        flat = np.ravel_multi_index([index[mask] for index in indices], total.shape)
        if amount is None:
            total += np.bincount(flat, minlength=total.size).reshape(total.shape)
        else:
            amounts = np.broadcast_to(amount, mask.shape)[mask].astype(np.int64)
            np.add.at(total.reshape(-1), flat, amounts)
