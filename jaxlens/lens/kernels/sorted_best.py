"""The best logits so far of many lanes at once, each lane's in a list: best first."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

NO_COLUMN = np.int32(2**31 - 1)
"""After all columns."""


def insert(
    best: list[jax.Array], columns: list[jax.Array], z: jax.Array, column: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The sorted best with one more logit of a later column, after those that it equals."""
    is_above = [z > logit for logit in best]
    inserted = [jnp.maximum(best[0], z)]
    inserted_columns = [jnp.where(is_above[0], column, columns[0])]
    for i in range(1, len(best)):  # what is above the one before pushes that one down
        logit = jnp.where(is_above[i - 1], best[i - 1], z)
        inserted.append(jnp.where(is_above[i], logit, best[i]))
        of_logit = jnp.where(is_above[i - 1], columns[i - 1], column)
        inserted_columns.append(jnp.where(is_above[i], of_logit, columns[i]))
    return inserted, inserted_columns


def without_first(
    best: list[jax.Array], columns: list[jax.Array], is_taken: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The sorted best, one fewer: the first is left out in some lanes, the last in the others."""
    left, columns_left = (
        [jnp.where(is_taken, after, one) for one, after in itertools.pairwise(values)]
        for values in (best, columns)
    )
    return left, columns_left
