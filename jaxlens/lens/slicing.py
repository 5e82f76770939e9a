"""Parts of arrays by number, at the cost of what is taken.

XLA slices and gathers bfloat16 on CPUs in float32, and keeps a float32 copy of the whole array for
it. The integers of the same bits are sliced as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from jaxlens.lens import tuning

T = TypeVar("T")

_Pick = Callable[[jax.Array, jax.Array], jax.Array]


def entry(stacked: T, number: jax.Array) -> T:
    """Entry ``number`` along axis 0 of every leaf of a pytree; what `jax.lax.scan` takes of ``xs``.

    Args:
        stacked: Pytree of arrays whose first axes are equally long.
        number: Scalar, 0 to their length.
    """

    def pick(leaf: jax.Array, number: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(leaf, number, 0, keepdims=False)

    return jax.tree.map(lambda leaf: _pick(pick, jnp.asarray(leaf), number), stacked)


def rows(table: Shaped[Array, "row embed"], numbers: Int[Array, "..."]) -> jax.Array:
    """``table[numbers]``, ``[..., embed]``."""
    return _pick(lambda table, numbers: table[numbers], jnp.asarray(table), numbers)


def _pick(pick: _Pick, array: jax.Array, numbers: jax.Array) -> jax.Array:
    if array.dtype != jnp.bfloat16:
        return pick(array, numbers)

    def of_bits(array: jax.Array, numbers: jax.Array) -> jax.Array:
        # Tied to the numbers, or XLA would make the view of the whole array before a loop.
        array, numbers = jax.lax.optimization_barrier((array, numbers))
        bits = jax.lax.bitcast_convert_type(array, jnp.uint16)
        return jax.lax.bitcast_convert_type(pick(bits, numbers), array.dtype)

    def make(chosen: tuning.Tuning) -> Callable[..., Any]:
        return of_bits if chosen.slices_bits else pick

    return tuning.by_platform(make, array, numbers)
