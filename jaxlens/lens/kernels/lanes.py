"""What each lane of the kernel keeps: the online statistics of `online`, of its own columns.

Floats are ``[statistic, token, lane]``, in the order of `FLOATS`; integers are ``[1 + reference,
token, lane]``: the best column, then the counts. After the last tile the lanes are combined.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens.lens import online

LANES = 128
CHUNK = 8
"""Rows that are reduced together: the sublanes of a vector register of 32-bit values."""

FLOATS = ("max_logit", "sum_exp", "sum_exp_logit", "kl_input", "kl_final", "sum_exp_tempered")
"""What the floats are; the last only where there are temperatures."""

_MAX, _SUM, _MOMENT, _INPUT, _FINAL, _TEMPERED = range(len(FLOATS))
_NO_COLUMN = np.int32(2**31 - 1)


def groups(tile: int) -> list[slice]:
    """The columns of a tile, as many at a time as a vector has lanes."""
    return [slice(first, first + LANES) for first in range(0, tile, LANES)]


def start(sums: Any, counts: Any) -> None:
    """Stores the state before the first tile."""
    sums[...] = jnp.zeros(sums.shape, jnp.float32)
    sums[_MAX] = jnp.full(sums.shape[1:], online.PADDING_LOGIT)
    counts[...] = jnp.zeros(counts.shape, jnp.int32)


def find_best(
    sums: Any, counts: Any, chunk: slice, logits: list[jax.Array], columns: list[jax.Array]
) -> jax.Array:
    """Stores each lane's best column so far, the first of equals, and returns its logit."""
    greatest, best = sums[_MAX, chunk], counts[0, chunk]
    for z, column in zip(logits, columns, strict=True):
        best = jnp.where(z > greatest, column, best)
        greatest = jnp.maximum(greatest, z)
    counts[0, chunk] = best
    return greatest


def add_sums(
    sums: Any,
    p: Any,
    chunk: slice,
    logits: list[jax.Array],
    greatest: jax.Array,
    temperature: jax.Array | None,
) -> None:
    """Adds a tile to the sums of each lane, which become relative to the new greatest logit."""
    old = sums[_MAX, chunk]
    decay = jnp.exp(old - greatest)
    total, moment = sums[_SUM, chunk] * decay, sums[_MOMENT, chunk] * decay
    ends = [sums[_INPUT, chunk], sums[_FINAL, chunk]]
    tempered = sums[_TEMPERED, chunk]
    if temperature is not None:
        tempered = tempered * jnp.exp(temperature * (old - greatest))
    for z, group in zip(logits, groups(len(logits) * LANES), strict=True):
        e = jnp.exp(z - greatest)
        total, moment = total + e, moment + e * z
        ends = [mean + p[i, chunk, group] * z for i, mean in enumerate(ends)]
        if temperature is not None:
            tempered = tempered + jnp.exp(temperature * (z - greatest))
    for k, value in enumerate((greatest, total, moment, *ends, tempered)):
        sums[k, chunk] = value


def count_greater(
    counts: Any,
    reference_logits: Any,
    ids: Any,
    chunk: slice,
    logits: list[jax.Array],
    columns: list[jax.Array],
) -> None:
    """Counts logits above each reference's, its own column left out as in `ranks`."""
    for r in range(ids.shape[-1]):
        count = counts[1 + r, chunk]
        least, own = reference_logits[chunk, r : r + 1], ids[chunk, r : r + 1]
        for z, column in zip(logits, columns, strict=True):
            count = count + ((z > least) & (column != own)).astype(jnp.int32)
        counts[1 + r, chunk] = count


def combine_sums(sums: Any, floats: Any, temperature: jax.Array | None) -> None:
    """Sums of all lanes, relative to the greatest logit of all."""
    greatest = sums[_MAX].max(-1, keepdims=True)
    shift = sums[_MAX] - greatest
    scale = jnp.exp(shift)
    tempered = scale if temperature is None else jnp.exp(temperature * shift)
    floats[:, _MAX : _MAX + 1] = greatest
    for k, factor in ((_SUM, scale), (_MOMENT, scale), (_TEMPERED, tempered)):
        floats[:, k : k + 1] = (sums[k] * factor).sum(-1, keepdims=True)
    for k in (_INPUT, _FINAL):
        floats[:, k : k + 1] = sums[k].sum(-1, keepdims=True)


def combine_counts(sums: Any, counts: Any, integers: Any) -> None:
    """The first of the best columns of all lanes, and the counts."""
    is_best = sums[_MAX] == sums[_MAX].max(-1, keepdims=True)
    integers[:, 0:1] = jnp.where(is_best, counts[0], _NO_COLUMN).min(-1, keepdims=True)
    for k in range(1, counts.shape[0]):
        integers[:, k : k + 1] = counts[k].sum(-1, keepdims=True)
