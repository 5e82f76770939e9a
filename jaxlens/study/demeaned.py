"""Products by group of documents of what means of token types leave, from rows or from tallies.

How much the rows of a document go together is seen only in columns from which a mean of their type
was subtracted. Where there are rows, a second pass over them subtracts the means over all rows,
which are known after the first; sums are float64. Where there are none, the sweep subtracted the
means of a table that was fixed before it (``tally.type_means``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens.store import reader, token_counts_file
from jaxlens.study import fold, over_types
from jaxlens.study.estimators import ROOM
from jaxlens.tally import axes, bins, facts

COLUMNS = axes.VARYING
"""Columns of the products."""

NAMES = tuple(name for name in COLUMNS if name not in ROOM)
"""What is held within a type: rarity and the embedding's norm do not vary, room is for copies."""


class Products(NamedTuple):
    """Sums over rows less the means of their types, in natural units.

    Attributes:
        xtx: Products of ``COLUMNS``.
        xty: Products of these with ln rank_input.
        yty: Squares of ln rank_input.
        xtc: Products of the columns with being copied later.
        ytc: Products of ln rank_input with being copied later.
        count: Rows.
        own_means: Whether the means are those of the same rows, not of a table.
        over_types: Scores of slopes over types, see ``over_types``; None without rows, or where
            types were not counted.
    """

    xtx: Float[np.ndarray, "group column column"]
    xty: Float[np.ndarray, "group column layer"]
    yty: Float[np.ndarray, "group layer"]
    xtc: Float[np.ndarray, "group column"]
    ytc: Float[np.ndarray, "group layer"]
    count: Int[np.ndarray, " group"]
    own_means: bool = True
    over_types: Float[np.ndarray, "weighting group layer"] | None = None


def products(
    run: reader.Run,
    tallies: fold.Tallies,
    documents: Bool[np.ndarray, " document"] | None = None,
) -> Products | None:
    """Products of the rows of a run, or else those of its tallies; None where it has neither.

    Args:
        run: Finished run.
        tallies: Of the same rows, which have the sums of each type.
        documents: Those whose rows count; all by default.
    """
    if "type_regressor" not in tallies:
        return None
    if not all(name in run for name in fold.NEEDED):
        return of_tallies(tallies)
    counts = token_counts_file.of_run(run)
    lookup = facts.tables(tallies["type_count"].size, counts)
    length, n_layers = int(run.spec["plan"]["length"]), tallies["type_sum"].shape[1]
    total, scores = empty(n_layers), over_types.empty(n_layers)
    of_type = over_types.coefficients(tallies, counts)
    for batch in run.batches(fold.NEEDED, rows=fold.ROWS):
        values = fold.prepare(batch, run.corpus.documents, length)
        real = np.ones(len(batch["token"]), bool)
        real = real if documents is None else documents[batch["document"]]
        rows = facts.of_rows(values, real, lookup, np)
        add(total, rows, tallies)
        over_types.add(scores, rows, tallies, of_type)
    return total._replace(over_types=scores)


def of_tallies(tallies: fold.Tallies) -> Products | None:
    """Products less a table's means; None of tallies before the third edition."""
    if "within_product" not in tallies:
        return None
    n = len(COLUMNS)  # being copied is the last column
    both, outcome = (tallies[f"within_{name}"] / bins.ONE for name in ("product", "outcome"))
    return Products(
        xtx=both[:, :n, :n],
        xty=outcome[:, :n],
        yty=tallies["within_square"] / bins.ONE,
        xtc=both[:, :n, n],
        ytc=outcome[:, n],
        count=tallies["group_count"][axes.MEASURES.index("rank_input"), :, 0],
        own_means=False,
    )


def empty(n_layers: int) -> Products:
    """Products of no rows."""
    group, n = bins.GROUPS, len(COLUMNS)
    return Products(
        xtx=np.zeros((group, n, n)),
        xty=np.zeros((group, n, n_layers)),
        yty=np.zeros((group, n_layers)),
        xtc=np.zeros((group, n)),
        ytc=np.zeros((group, n_layers)),
        count=np.zeros(group, np.int64),
    )


def add(total: Products, rows: facts.Facts, tallies: fold.Tallies) -> None:
    """Adds rows to products, which are altered.

    Args:
        total: So far.
        rows: Of NumPy.
        tallies: Of all rows.
    """
    used = np.flatnonzero(rows.valid)
    if not len(used):
        return
    token = np.asarray(rows.values["token"])[used]
    columns = [axes.REGRESSORS.index(name) for name in COLUMNS]
    count = np.maximum(tallies["type_count"], 1)[:, None]
    means = (tallies["type_regressor"][:, columns] / count)[token]
    x = (rows.regressors[used][:, columns] - means) / bins.ONE
    y = (rows.ln["input"][used] - (tallies["type_sum"] / count)[token]) / bins.ONE
    copied = np.asarray(rows.values["copied"])[used] > 0
    c = copied - (tallies["type_copied"] / count[:, 0])[token]
    for number, part in fold.by_group(np.asarray(rows.group)[used]):
        u, v, w = x[part], y[part], c[part]
        sums = {"xtx": u.T @ u, "xty": u.T @ v, "yty": (v * v).sum(0), "xtc": u.T @ w}
        sums |= {"ytc": v.T @ w, "count": np.array(len(part))}
        for name, what in sums.items():
            getattr(total, name)[number] += what
