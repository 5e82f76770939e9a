"""What each lane of the kernel keeps: the online statistics of `online`, of its own columns.

Floats are ``[statistic, token, lane]``, in the order of `FLOATS`, then the second-best logit and
those after it; integers are ``[k + reference, token, lane]``: the k best columns, best first, then
the counts. After the last tile the lanes are combined.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens.lens import online
from jaxlens.lens.kernels import sorted_best

LANES = 128
CHUNK = 8
"""Rows that are reduced together: the sublanes of a vector register of 32-bit values."""

FLOATS = ("max_logit", "sum_exp", "sum_exp_logit", "kl_input", "kl_final", "sum_exp_tempered")
"""What the floats are; the last only where there are temperatures."""

_MAX, _SUM, _MOMENT, _INPUT, _FINAL, _TEMPERED = range(len(FLOATS))
_LOG2_E = np.float32(np.log2(np.e))


class Tile(NamedTuple):
    """Logits of some rows in one tile.

    Attributes:
        logits: Of all rows.
        rows: Which rows, `CHUNK` of them.
        first_column: Of the tile.
    """

    logits: Any
    rows: slice
    first_column: Any

    @property
    def groups(self) -> list[slice]:
        """The tile's columns, as many at a time as a vector has lanes."""
        return groups(self.logits.shape[-1])

    @property
    def vectors(self) -> list[jax.Array]:
        """The logits of each group."""
        return [self.logits[self.rows, group] for group in self.groups]

    @property
    def columns(self) -> list[jax.Array]:
        """The columns of each group, in the vocabulary."""
        lane = jax.lax.broadcasted_iota(jnp.int32, (CHUNK, LANES), 1)
        return [lane + (self.first_column + group.start) for group in self.groups]


def groups(columns: int) -> list[slice]:
    """Columns, as many at a time as a vector has lanes."""
    return [slice(first, first + LANES) for first in range(0, columns, LANES)]


def n_floats(top_k: int) -> int:
    """How many floats there are, with the logits of so many best columns."""
    return len(FLOATS) + top_k - 1


def _of_best(k: int) -> list[int]:
    """Where the floats are that hold the k best logits."""
    return [_MAX, *range(len(FLOATS), len(FLOATS) + k - 1)]


def start(sums: Any, counts: Any, k: int) -> None:
    """Stores the state before the first tile."""
    sums[...] = jnp.zeros(sums.shape, jnp.float32)
    for best in _of_best(k):
        sums[best] = jnp.full(sums.shape[1:], online.PADDING_LOGIT)
    counts[...] = jnp.zeros(counts.shape, jnp.int32)


def find_best(sums: Any, counts: Any, tile: Tile, k: int) -> jax.Array:
    """Stores each lane's best columns so far, the first of equals, and returns the best logit.

    The best logit itself is stored by `add_sums`, which needs the one before.
    """
    best = [sums[i, tile.rows] for i in _of_best(k)]
    columns = [counts[i, tile.rows] for i in range(k)]
    for z, column in zip(tile.vectors, tile.columns, strict=True):
        best, columns = sorted_best.insert(best, columns, z, column)
    for i, where in enumerate(_of_best(k)[1:], 1):
        sums[where, tile.rows] = best[i]
    for i in range(k):
        counts[i, tile.rows] = columns[i]
    return best[0]


def mark_references(marks: Any, ids: Any, rows: slice, first_column: jax.Array) -> None:
    """Stores what takes the columns of reference tokens out of the counts, for all layers."""
    columns = (tile := Tile(marks, rows, first_column)).columns
    own = [jnp.broadcast_to(ids[rows, r : r + 1], columns[0].shape) for r in range(ids.shape[-1])]
    for column, group in zip(columns, tile.groups, strict=True):
        is_reference = functools.reduce(jnp.logical_or, [column == token for token in own])
        marks[rows, group] = jnp.where(is_reference, online.PADDING_LOGIT, np.float32(0.0))


def add_sums(
    sums: Any, p: Any, tile: Tile, greatest: jax.Array, temperature: jax.Array | None
) -> None:
    """Adds a tile to the sums of each lane, which become relative to the new greatest logit."""
    rows = tile.rows
    old = sums[_MAX, rows]
    decay = jnp.exp(old - greatest)
    total, moment = sums[_SUM, rows] * decay, sums[_MOMENT, rows] * decay
    ends = [sums[_INPUT, rows], sums[_FINAL, rows]]
    tempered = sums[_TEMPERED, rows]
    scale = None if temperature is None else temperature * _LOG2_E
    if scale is not None:
        tempered = tempered * jnp.exp2(scale * (old - greatest))
    for z, group in zip(tile.vectors, tile.groups, strict=True):
        shifted = z - greatest
        e = jnp.exp2(_LOG2_E * shifted)  # as a TPU computes exponentials
        total, moment = total + e, moment + e * z
        ends = [mean + p[i, rows, group] * z for i, mean in enumerate(ends)]
        if scale is not None:
            tempered = tempered + jnp.exp2(scale * shifted)
    for k, value in enumerate((greatest, total, moment, *ends, tempered)):
        sums[k, rows] = value


def count_greater(counts: Any, reference_logits: Any, marks: Any, tile: Tile) -> None:
    """Counts the logits above each reference's in the columns of no reference."""
    rows = tile.rows
    unmarked = [z + marks[rows, group] for z, group in zip(tile.vectors, tile.groups, strict=True)]
    references = reference_logits.shape[-1]
    first = counts.shape[0] - references
    for r in range(references):
        count, least = counts[first + r, rows], reference_logits[rows, r : r + 1]
        for z in unmarked:
            count = count + (z > least).astype(jnp.int32)
        counts[first + r, rows] = count


def count_among(
    reference_logits: Float[Array, "layer token reference"], ids: Int[Array, "token reference"]
) -> Int[Array, "layer token reference"]:
    """Counts other reference tokens above each; one that is there several times counts once.

    Those that are -1 have no column here, and are counted where they do.
    """
    is_same = ids[:, :, None] == ids[:, None, :]
    earlier = np.tri(ids.shape[-1], k=-1, dtype=bool)
    is_first = ~(is_same & earlier[None]).any(-1) & (ids >= 0)
    is_greater = reference_logits[..., None, :] > reference_logits[..., :, None]
    counted = is_greater & (~is_same & is_first[:, None])[None]
    return counted.sum(-1, dtype=jnp.int32)


def combine_sums(sums: Any, floats: Any, temperature: jax.Array | None) -> None:
    """Sums of all lanes, relative to the greatest logit of all.

    That logit is left to `combine_best`.
    """
    greatest = sums[_MAX].max(-1, keepdims=True)
    shift = sums[_MAX] - greatest
    scale = jnp.exp(shift)
    tempered = scale if temperature is None else jnp.exp(temperature * shift)
    for k, factor in ((_SUM, scale), (_MOMENT, scale), (_TEMPERED, tempered)):
        floats[:, k : k + 1] = (sums[k] * factor).sum(-1, keepdims=True)
    for k in (_INPUT, _FINAL):
        floats[:, k : k + 1] = sums[k].sum(-1, keepdims=True)


def combine_best(sums: Any, counts: Any, floats: Any, integers: Any, k: int) -> None:
    """Logits and columns of the best of all lanes, the first of equals first."""
    best, columns = [sums[i] for i in _of_best(k)], [counts[i] for i in range(k)]
    for i, where in enumerate(_of_best(k)):
        # Every lane is sorted, and so are its equals: the best that is left leads one of them.
        greatest = best[0].max(-1, keepdims=True)
        of_best = jnp.where(best[0] == greatest, columns[0], sorted_best.NO_COLUMN)
        column = of_best.min(-1, keepdims=True)
        floats[:, where : where + 1] = greatest
        integers[:, i : i + 1] = column
        best, columns = sorted_best.without_first(best, columns, of_best == column)


def combine_counts(counts: Any, integers: Any, k: int) -> None:
    """Counts of all lanes."""
    for i in range(k, counts.shape[0]):
        integers[:, i : i + 1] = counts[i].sum(-1, keepdims=True)
