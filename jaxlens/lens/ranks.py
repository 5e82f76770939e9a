"""Ranks without sorting: how many logits of a tile exceed those of the reference tokens.

A rank is one plus the number of other tokens with a greater logit, so that ties share the best
rank; `online` adds the counts of all tiles to those that `start` gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens.lens import tuning

_GROUP = 64


def start(
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
) -> Int[Array, "layer token reference"]:
    """Counts before the first tile: of what `count_greater` leaves out of every tile."""
    return tuning.by_platform(
        lambda chosen: _compare_references if chosen.masks_references_once else _zeros,
        *(reference_logits, ids),
    )


def count_greater(
    z: Float[Array, "layer token column"],
    column: jax.Array | int,
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
) -> Int[Array, "layer token reference"]:
    """Logits of this tile above each reference's, the reference's own column left out.

    Its own column is left out because the gathered logit equals the tile's only to rounding.
    """

    def make(chosen: tuning.Tuning) -> Callable[..., jax.Array]:
        if chosen.groups_columns:
            return _count_packed
        return _count_others if chosen.masks_references_once else _count_each

    return tuning.by_platform(make, z, jnp.asarray(column, jnp.int32), reference_logits, ids)


def best(
    z: Float[Array, "layer token column"],
) -> tuple[Float[Array, "layer token"], Int[Array, "layer token"]]:
    """The greatest logit of each row, and the first column that holds it."""

    def grouped(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A maximum and a minimum vectorise where an argmax does not.
        greatest = z.max(-1)
        columns = _grouped(jnp.arange(z.shape[-1], dtype=jnp.int32)[None, None])
        within = jnp.where(_grouped(z) == greatest[..., None, None], columns, z.shape[-1]).min(-2)
        return greatest, jax.lax.optimization_barrier(within).min(-1)

    def apart(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        greatest = z.max(-1)
        columns = jnp.arange(z.shape[-1], dtype=jnp.int32)[None, None]
        return greatest, jnp.where(z == greatest[..., None], columns, z.shape[-1]).min(-1)

    def make(chosen: tuning.Tuning) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        if chosen.groups_columns:
            return grouped
        return _best_at_once if chosen.pairs_maximum else apart

    return tuning.by_platform(make, z)


def _best_at_once(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    columns = jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1)

    def better(
        one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        is_one = (one[0] > other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))
        return jnp.where(is_one, one[0], other[0]), jnp.where(is_one, one[1], other[1])

    start = (np.float32(-np.inf), np.int32(z.shape[-1]))
    return jax.lax.reduce((z, columns), start, better, (z.ndim - 1,))


def _count_each(
    z: jax.Array, column: jax.Array, reference_logits: jax.Array, ids: jax.Array
) -> jax.Array:
    columns = column + jnp.arange(z.shape[-1], dtype=jnp.int32)[None, None]
    counts = [
        ((z > reference_logits[..., r, None]) & (columns != ids[None, :, r, None])).sum(
            -1, dtype=jnp.int32
        )
        for r in range(reference_logits.shape[-1])
    ]
    return jnp.stack(counts, -1)


def _count_others(
    z: jax.Array, column: jax.Array, reference_logits: jax.Array, ids: jax.Array
) -> jax.Array:
    """Leaves the columns of all references out of every count, for `_compare_references` to add.

    One mask serves all layers and references, where each reference's own would have to be read
    with every logit.
    """
    columns = column + jnp.arange(z.shape[-1], dtype=jnp.int32)[None]
    is_reference = functools.reduce(
        jnp.logical_or, [columns == ids[:, r, None] for r in range(ids.shape[-1])]
    )
    is_reference = jax.lax.optimization_barrier(is_reference)
    others = jnp.where(is_reference[None], np.float32(-np.inf), z)
    counts = [
        (others > reference_logits[..., r, None]).sum(-1, dtype=jnp.int32)
        for r in range(reference_logits.shape[-1])
    ]
    return jnp.stack(counts, -1)


def _compare_references(reference_logits: jax.Array, ids: jax.Array) -> jax.Array:
    """References above each reference; a token that is several of them counts once.

    Those that are -1 have no column here, and are counted where they do.
    """
    counts = jnp.zeros(reference_logits.shape, jnp.int32)
    for r in range(ids.shape[-1]):
        is_counted = (ids[:, r, None] == ids[:, :r]).any(-1) | (ids[:, r] < 0)
        is_other = (ids != ids[:, r, None]) & ~is_counted[:, None]
        counts += ((reference_logits[..., r, None] > reference_logits) & is_other[None]).astype(
            jnp.int32
        )
    return counts


def _zeros(reference_logits: jax.Array, ids: jax.Array) -> jax.Array:
    return jnp.zeros(reference_logits.shape, jnp.int32)


def _count_packed(
    z: jax.Array, column: jax.Array, reference_logits: jax.Array, ids: jax.Array
) -> jax.Array:
    """Several counts share one integer, so that the logits are read once for all references.

    Each needs only the bits that count the groups of `_grouped`.
    """
    columns = _grouped(column + jnp.arange(z.shape[-1], dtype=jnp.int32)[None, None])
    groups = _grouped(z)
    bits = groups.shape[-2].bit_length()
    together = 31 // bits
    counts = []
    for first in range(0, reference_logits.shape[-1], together):
        members = range(first, min(first + together, reference_logits.shape[-1]))
        packed = jnp.zeros((), jnp.int32)
        for member, r in enumerate(members):
            above = (groups > reference_logits[..., r, None, None]) & (
                columns != ids[None, :, r, None, None]
            )
            packed = packed + jnp.where(above, np.int32(1 << bits * member), np.int32(0))
        packed = jax.lax.optimization_barrier(packed.sum(-2, dtype=jnp.int32))
        for member in range(len(members)):
            one = (packed >> np.int32(bits * member)) & np.int32((1 << bits) - 1)
            counts.append(one.sum(-1, dtype=jnp.int32))
    return jnp.stack(counts, -1)


def _grouped(x: jax.Array) -> jax.Array:
    """Columns in groups of 64, where they divide: ``[..., group, 64]``.

    Integers reduce twice as fast on CPUs along the groups and then within one (a barrier between
    the two keeps XLA from joining them again) as along all columns at once.
    """
    width = _GROUP if x.shape[-1] % _GROUP == 0 else x.shape[-1]
    return x.reshape(*x.shape[:-1], -1, width)
