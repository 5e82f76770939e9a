"""Exact additions at scattered places of 64-bit totals.

TPUs have no 64-bit integers, and emulate a scatter of them. Within a step, where the number of
additions is known, 32 bits are enough for a part of each amount: amounts are cut into parts so
narrow that no sum of them overflows, which are scattered side by side and joined afterwards.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens.tally import addition

AMOUNT_BITS = {np.dtype(np.int32): 32, np.dtype(np.int64): 48}
"""Bits of an amount with its sign: fixed-point numbers are below 2**31, their products 2**45."""


def add(total: jax.Array, cell: jax.Array, amount: jax.Array | None = None) -> jax.Array:
    """Adds amounts to cells; those beyond the last cell are dropped.

    Args:
        total: ``[cell, ...]``, int64.
        cell: ``[row]``, index of each addition.
        amount: ``[row, ...]``, int32, or int64 of at most 48 bits; 1 by default.

    Returns:
        The new total, to the same bits on every platform.
    """
    if amount is None:
        amount = jnp.ones(cell.shape + (1,) * (total.ndim - 1), jnp.int32)
        return jax.lax.platform_dependent(total, cell, amount, tpu=add_counts, default=add_wide)
    return jax.lax.platform_dependent(total, cell, amount, tpu=add_parts, default=add_wide)


def add_wide(total: jax.Array, cell: jax.Array, amount: jax.Array) -> jax.Array:
    """As one scatter of 64-bit integers."""
    return total.at[cell].add(amount.astype(jnp.int64), mode="drop")


def add_counts(total: jax.Array, cell: jax.Array, amount: jax.Array) -> jax.Array:
    """As a scatter of 32-bit integers; amounts are so small that their sum has 31 bits."""
    zeros = jnp.zeros(total.shape, jnp.int32)
    return total + zeros.at[cell].add(amount, mode="drop").astype(jnp.int64)


def add_parts(total: jax.Array, cell: jax.Array, amount: jax.Array) -> jax.Array:
    """As a scatter of 32-bit parts of the amounts."""
    bits = 31 - max(1, (cell.size - 1).bit_length())
    n_parts = -(-AMOUNT_BITS[amount.dtype] // bits)
    mask = amount.dtype.type((1 << bits) - 1)
    parts = [
        # The highest keeps the sign.
        (amount >> amount.dtype.type(bits * part)) & (mask if part < n_parts - 1 else -1)
        for part in range(n_parts)
    ]
    parts = jnp.stack([part.astype(jnp.int32) for part in parts], -1)
    summed = jnp.zeros((*total.shape, n_parts), jnp.int32).at[cell].add(parts, mode="drop")
    for part in range(n_parts):
        total = total + (summed[..., part].astype(jnp.int64) << np.int64(bits * part))
    return total


def add_lines(
    total: jax.Array,
    places: tuple[Any, ...],
    amount: jax.Array | addition.Products,
    where: jax.Array,
) -> jax.Array:
    """Adds whole lines: one scattered update a row instead of one a number.

    Args:
        total: Its last axes are those of a line, int64.
        places: Index of each axis before them, one a row.
        amount: ``[row, *line]``; of products, one column at a time is multiplied and added.
        where: Rows that count.
    """
    lines = total.reshape(-1, *total.shape[len(places) :])
    cell = jnp.broadcast_to(cells(total.shape, places), where.shape)
    cell = jnp.where(where, cell, len(lines))
    if not isinstance(amount, addition.Products):
        return add(lines, cell, amount).reshape(total.shape)
    n_columns = np.int32(lines.shape[1])

    def add_column(column: jax.Array, lines: jax.Array) -> jax.Array:
        return add(lines, cell * n_columns + column, amount.of_column(column))

    lines = lines.reshape(-1, lines.shape[-1])
    return jax.lax.fori_loop(np.int32(0), n_columns, add_column, lines).reshape(total.shape)


def cells(shape: tuple[int, ...], places: tuple[Any, ...]) -> Any:
    """Numbers of the cells along the first axes of a total."""
    cell: Any = jnp.zeros((), jnp.int32)
    for size, index in zip(shape[: len(places)], places, strict=True):
        cell = cell * np.int32(size) + jnp.asarray(index, jnp.int32)
    return cell
