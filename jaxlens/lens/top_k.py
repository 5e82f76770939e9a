"""The k greatest logits of each row, best first; of equals the one with the lowest column.

`jax.lax.top_k` gives the same. A TPU sorts whole rows for it, which takes longer than all the rest
of the step; there the best are taken one after another, out of a few columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens.lens import tuning

_MOST = 32  # beyond, taking them one after another may be no faster than a sort
_GROUP = 128
_NO_COLUMN = np.int32(2**31 - 1)


def find(
    z: Float[Array, "layer token column"], k: int
) -> tuple[Float[Array, "layer token k"], Int[Array, "layer token k"]]:
    """The k greatest logits of each row, and their columns.

    Args:
        z: Logits, all of them finite.
        k: How many, at most the number of columns.
    """

    def make(chosen: tuning.Tuning) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        if chosen.sorts_rows or k > _MOST:
            return functools.partial(_of_sorted, k=k)
        return functools.partial(_of_groups if _is_wide(z, k) else _one_by_one, k=k)

    return tuning.by_platform(make, z)


def _of_sorted(z: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    logits, columns = jax.lax.top_k(z, k)
    return logits, columns.astype(jnp.int32)


def _is_wide(z: jax.Array, k: int) -> bool:
    """Whether the groups and the columns of k of them are far fewer than all columns."""
    return z.shape[-1] // _GROUP + k * _GROUP < z.shape[-1] // 4


def _of_groups(z: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Searches only the k groups of columns that have the greatest maxima.

    The maxima of these groups come before any logit of another group: they are greater, or equal
    with a lower column, since of equal maxima the earlier groups are chosen.
    """
    more = -z.shape[-1] % _GROUP
    padded = jnp.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, more)], constant_values=-np.inf)
    groups = padded.reshape(*z.shape[:-1], -1, _GROUP)
    _, chosen = _one_by_one(groups.max(-1), k)
    shape = (*chosen.shape, _GROUP)
    within = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    columns = chosen[..., None] * np.int32(_GROUP) + within
    logits = jnp.take_along_axis(groups, chosen[..., None], axis=-2)
    flat = (*z.shape[:-1], k * _GROUP)
    return take(logits.reshape(flat), columns.reshape(flat), k)


def _one_by_one(z: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    return take(z, jax.lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1), k)


def take(z: jax.Array, columns: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """What `find` gives, where the columns of ``z`` need not be in order."""
    taken = []
    for _ in range(k):
        greatest = z.max(-1, keepdims=True)
        column = jnp.where(z == greatest, columns, _NO_COLUMN).min(-1, keepdims=True)
        taken.append((greatest, column))
        z = jnp.where(columns == column, np.float32(-np.inf), z)
    logits, chosen = zip(*taken, strict=True)
    return jnp.concatenate(logits, -1), jnp.concatenate(chosen, -1)
