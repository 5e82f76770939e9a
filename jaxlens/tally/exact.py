"""One generic update for every tally that ``schema`` defines.

All totals are int64: counts, integer histograms and fixed-point sums. Integer addition is
associative, so neither the order of steps nor the number of workers can change a bit. Each value
is rounded once, from float32, before it is added; ln rank and its histogram bin come from integer
tables, so no transcendental function decides a count.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxlens import schema

Totals = dict[str, jax.Array]


@struct.dataclass
class Tables:
    """Integer functions of the rank, by rank from 0 to the vocabulary size."""

    ln_rank: jax.Array
    ln_rank_bin: jax.Array


def tables(vocab_size: int) -> Tables:
    """Tables for a vocabulary."""
    return Tables(
        jnp.asarray(schema.ln_rank_table(vocab_size)), jnp.asarray(schema.ln_rank_bins(vocab_size))
    )


def shapes(
    tallies: Sequence[schema.Tally], n_layers: int, vocab_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the totals, int64, with the axes of each tally."""
    return {
        tally.name: jax.ShapeDtypeStruct(
            schema.tally_shape(tally, n_layers, vocab_size), np.dtype(np.int64)
        )
        for tally in tallies
    }


def zeros(totals: Mapping[str, jax.ShapeDtypeStruct], device: jax.Device | None = None) -> Totals:
    """Totals of nothing, committed to a device if one is named."""
    with wide():
        return {
            name: jax.device_put(np.zeros(total.shape, total.dtype), device)
            for name, total in totals.items()
        }


def init(tallies: Sequence[schema.Tally], n_layers: int, vocab_size: int) -> Totals:
    """Totals of nothing."""
    return zeros(shapes(tallies, n_layers, vocab_size))


def compile_update(
    tallies: tuple[schema.Tally, ...],
    totals: Totals,
    values: Mapping[str, jax.ShapeDtypeStruct],
    lookup: Tables,
) -> jax.stages.Compiled:
    """Compiles `update` for the device of the totals; call the result inside `wide`.

    Args:
        tallies: Definitions.
        totals: What ``init`` returned.
        values: Types of the values.
        lookup: ``tables`` of the vocabulary.
    """
    count = jax.ShapeDtypeStruct((), np.int32)
    with wide():
        return _update.lower(tallies, totals, dict(values), count, lookup).compile()


def wide() -> contextlib.AbstractContextManager[None]:
    """Context of everything that adds: without 64-bit mode JAX would silently add in int32."""
    return jax.enable_x64(True)


def update(
    tallies: tuple[schema.Tally, ...],
    totals: Totals,
    values: Mapping[str, jax.Array],
    count: jax.Array,
    lookup: Tables,
) -> Totals:
    """Adds the rows of one step.

    Args:
        tallies: Definitions.
        totals: What ``init`` or an earlier update returned; its buffers are reused.
        values: ``[row, layer]`` by quantity, ranks int32 and the rest float32, before any cast
            to a stored type; ``token`` is ``[row]``.
        count: Rows from here on are padding.
        lookup: ``tables`` of the vocabulary.

    Returns:
        New totals, int64.
    """
    with wide():
        return _update(tallies, totals, dict(values), count, lookup)


def merge(totals: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Adds finished totals; any order and grouping gives the same bits."""
    return {
        name: np.sum([np.asarray(part[name], np.int64) for part in totals], axis=0)
        for name in totals[0]
    }


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _update(
    tallies: tuple[schema.Tally, ...],
    totals: Totals,
    values: dict[str, jax.Array],
    count: jax.Array,
    lookup: Tables,
) -> Totals:
    rows = next(iter(values.values())).shape[0]
    real = jnp.arange(rows, dtype=jnp.int32) < count
    return {
        tally.name: _UPDATES[tally.kind](totals[tally.name], tally, values, real, lookup)
        for tally in tallies
    }


def _present(value: jax.Array, real: jax.Array) -> jax.Array:
    """Where a ``[row, layer]`` value counts: a real row, and not missing."""
    known = value > 0 if jnp.issubdtype(value.dtype, jnp.integer) else ~jnp.isnan(value)
    return known & real[:, None]


def _by_source(function, total, tally, values, *rest):  # type: ignore[no-untyped-def]
    """Adds ``function`` of each quantity that was read to its line of the total."""
    for line, name in enumerate(tally.source):
        if name in values:
            total = total.at[line].add(function(values[name], *rest))
    return total


def _counted(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    return _present(value, real).sum(0, dtype=jnp.int64)


def _summed(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    return jnp.where(_present(value, real), _fixed_point(value, lookup), 0).sum(0, dtype=jnp.int64)


def _saturated(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jnp.zeros(value.shape[1:], jnp.int64)
    beyond = jnp.abs(value) > np.float32(schema.FIXED_POINT_LIMIT)
    return (beyond & _present(value, real)).sum(0, dtype=jnp.int64)


def _binned(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    """Histogram ``[layer, bin]`` of ln rank."""
    bins = len(schema.LN_RANK_EDGES) - 1
    layers = value.shape[1]
    place = lookup.ln_rank_bin[value] + bins * jnp.arange(layers, dtype=jnp.int32)[None]
    place = jnp.where(_present(value, real), place, layers * bins)
    flat = jnp.zeros(layers * bins, jnp.int64).at[place.ravel()].add(1, mode="drop")
    return flat.reshape(layers, bins)


def _fixed_point(value: jax.Array, lookup: Tables) -> jax.Array:
    """The value in units of 2**-16 as int32; of a rank its ln, from the table."""
    if jnp.issubdtype(value.dtype, jnp.integer):
        return lookup.ln_rank[value]
    limit = np.float32(schema.FIXED_POINT_LIMIT)
    # A product with a power of two is exact in float32, and 2**30 fits int32.
    clipped = jnp.clip(jnp.nan_to_num(value, posinf=limit, neginf=-limit), -limit, limit)
    return jnp.rint(clipped * np.float32(2.0**schema.FIXED_POINT_BITS)).astype(jnp.int32)


def _token_count(total, tally, values, real, lookup):  # type: ignore[no-untyped-def]
    token = jnp.where(real, values["token"], total.shape[0])
    return total.at[token].add(1, mode="drop")


def _token_sum(total, tally, values, real, lookup):  # type: ignore[no-untyped-def]
    value = values[tally.source[0]]
    amount = jnp.where(_present(value, real), _fixed_point(value, lookup), 0).astype(jnp.int64)
    token = jnp.where(real, values["token"], total.shape[0])
    return total.at[token].add(amount, mode="drop")


_UPDATES = {
    "count": functools.partial(_by_source, _counted),
    "sum": functools.partial(_by_source, _summed),
    "saturated": functools.partial(_by_source, _saturated),
    "ln_rank_histogram": functools.partial(_by_source, _binned),
    "token_count": _token_count,
    "token_sum": _token_sum,
}
