"""Products by group of documents of what the means of token types leave: a second pass over rows.

A slope within types needs no rows, its interval does: how much the rows of a document go together
is seen only in columns from which the mean of their type over all rows was subtracted, and these
means are known after the first pass. Sums are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens.store import reader
from jaxlens.study import fold
from jaxlens.study.estimators import HELD, ROOM
from jaxlens.tally import axes, bins, facts

OF_THE_TYPE = ("constant", "rarity", "embedding_norm")

NAMES = tuple(name for name in HELD if name not in OF_THE_TYPE)
"""What varies within a type and is held there: rarity and the embedding's norm do not vary."""

COLUMNS = (*NAMES, *ROOM)
"""Columns of the products."""


class Products(NamedTuple):
    """Sums over rows less the means of their types, in natural units.

    Attributes:
        xtx: Products of ``COLUMNS``.
        xty: Products of these with ln rank_input.
        yty: Squares of ln rank_input.
        xtc: Products of the columns with being copied later.
        ytc: Products of ln rank_input with being copied later.
        count: Rows.
    """

    xtx: Float[np.ndarray, "group column column"]
    xty: Float[np.ndarray, "group column layer"]
    yty: Float[np.ndarray, "group layer"]
    xtc: Float[np.ndarray, "group column"]
    ytc: Float[np.ndarray, "group layer"]
    count: Int[np.ndarray, " group"]


def products(
    run: reader.Run,
    tallies: fold.Tallies,
    documents: Bool[np.ndarray, " document"] | None = None,
) -> Products | None:
    """Products of the rows of a run; None where it keeps too few columns of them.

    Args:
        run: Finished run.
        tallies: Of the same rows, which have the sums of each type.
        documents: Those whose rows count; all by default.
    """
    if "type_regressor" not in tallies or not all(name in run for name in fold.NEEDED):
        return None
    lookup = facts.tables(tallies["type_count"].size, run.corpus.token_counts)
    length, total = int(run.spec["plan"]["length"]), empty(tallies["type_sum"].shape[1])
    for batch in run.batches(fold.NEEDED, rows=fold.ROWS):
        values = fold.prepare(batch, run.corpus.documents, length)
        real = np.ones(len(batch["token"]), bool)
        real = real if documents is None else documents[batch["document"]]
        add(total, facts.of_rows(values, real, lookup, np), tallies)
    return total


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
    group = np.asarray(rows.group)[used]
    order = np.argsort(group, kind="stable")
    held, first = np.unique(group[order], return_index=True)
    for number, part in zip(held, np.split(order, first[1:]), strict=True):
        u, v, w = x[part], y[part], c[part]
        for into, what in zip(
            total, (u.T @ u, u.T @ v, (v * v).sum(0), u.T @ w, v.T @ w, len(part)), strict=True
        ):
            into[number] += what
