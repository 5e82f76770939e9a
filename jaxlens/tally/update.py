"""One generic update for every tally of ``definitions``.

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

from jaxlens.tally import addition, bins, definitions, facts, rules, sampling, scatter, type_means

Totals = dict[str, jax.Array]


Tables = facts.Tables


def tables(
    vocab_size: int, counts: np.ndarray | None = None, means: type_means.TypeMeans | None = None
) -> Tables:
    """``facts.tables`` on the default device."""
    return jax.tree.map(jnp.asarray, facts.tables(vocab_size, counts, means))


def shapes(
    tallies: Sequence[definitions.Tally], n_layers: int, vocab_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the totals, int64, with the axes of each tally."""
    return {
        tally.name: jax.ShapeDtypeStruct(
            definitions.shape(tally, n_layers, vocab_size), np.dtype(np.int64)
        )
        for tally in tallies
    }


def zeros(totals: Mapping[str, jax.ShapeDtypeStruct], device: jax.Device | None = None) -> Totals:
    """Empty totals, committed to a device if one is named."""
    with wide():
        return {
            name: jax.device_put(definitions.empty(name, total.shape), device)
            for name, total in totals.items()
        }


def init(tallies: Sequence[definitions.Tally], n_layers: int, vocab_size: int) -> Totals:
    """Empty totals."""
    return zeros(shapes(tallies, n_layers, vocab_size))


def compile_update(
    tallies: tuple[definitions.Tally, ...],
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
    tallies: tuple[definitions.Tally, ...],
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
    """Merges finished totals; any order and grouping gives the same bits."""
    merged = {}
    for name in totals[0]:
        parts = [np.asarray(part[name], np.int64) for part in totals]
        if definitions.BY_NAME[name].merge == "bottom_k":
            merged[name] = sampling.lowest(np.concatenate(parts), len(parts[0]))
        else:
            merged[name] = np.sum(parts, axis=0)
    return merged


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _update(
    tallies: tuple[definitions.Tally, ...],
    totals: Totals,
    values: dict[str, jax.Array],
    count: jax.Array,
    lookup: Tables,
) -> Totals:
    n_rows = next(iter(values.values())).shape[0]
    real = jnp.arange(n_rows, dtype=jnp.int32) < count
    updated = {
        tally.name: _UPDATES[tally.kind](totals[tally.name], tally, values, real, lookup)
        for tally in tallies
        if tally.kind != "study"
    }
    if len(updated) < len(tallies):
        rows = facts.of_rows(values, real, lookup, jnp)
        for tally in tallies:
            if tally.kind == "study":
                add = _sampled if tally.merge == "bottom_k" else _studied
                updated[tally.name] = add(totals[tally.name], tally.name, rows)
    return updated


def _studied(total: jax.Array, name: str, rows: facts.Facts) -> jax.Array:
    """Adds the additions of a tally's rule."""
    for places, amount, where in rules.RULES[name](rows):
        if (n := addition.lines(places)) is not None:
            total = scatter.add_lines(total, places[:n], amount, where)
            continue
        flat = total.reshape(-1)
        cell = scatter.cells(total.shape, places)
        shape = jnp.broadcast_shapes(cell.shape, where.shape)
        cell = jnp.where(jnp.broadcast_to(where, shape), jnp.broadcast_to(cell, shape), flat.size)
        if amount is not None:
            amount = amount.reshape((1,) * (len(shape) - amount.ndim) + amount.shape)
            amount = jnp.broadcast_to(amount, shape).reshape(-1)
        total = scatter.add(flat, cell.reshape(-1), amount).reshape(total.shape)
    return total


def _sampled(total: jax.Array, name: str, rows: facts.Facts) -> jax.Array:
    """Keeps the lines with the lowest keys."""
    lines, candidate = rules.sampled(name, rows)
    empty = jnp.asarray(definitions.empty(name, (1, lines.shape[1])))
    both = jnp.concatenate([total, jnp.where(candidate[:, None], lines, empty)])
    return both[jnp.lexsort((both[:, 1], both[:, 0]))[: len(total)]]


def _present(value: jax.Array, real: jax.Array) -> jax.Array:
    """Where a ``[row, layer]`` value counts: a real row, and not missing."""
    known = value > 0 if jnp.issubdtype(value.dtype, jnp.integer) else ~jnp.isnan(value)
    return known & real[:, None]


def _by_source(function, total, tally, values, *rest):  # type: ignore[no-untyped-def]
    """Adds ``function`` of each quantity that was read to its line of the total."""
    return jnp.stack(
        [
            total[line] + function(values[name], *rest) if name in values else total[line]
            for line, name in enumerate(tally.source)
        ]
    )


def _counted(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    return _present(value, real).sum(0, dtype=jnp.int64)


def _summed(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    return jnp.where(_present(value, real), _fixed_point(value, lookup), 0).sum(0, dtype=jnp.int64)


def _saturated(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jnp.zeros(value.shape[1:], jnp.int64)
    beyond = jnp.abs(value) > np.float32(bins.FIXED_POINT_LIMIT)
    return (beyond & _present(value, real)).sum(0, dtype=jnp.int64)


def _binned(value: jax.Array, real: jax.Array, lookup: Tables) -> jax.Array:
    """Histogram ``[layer, bin]`` of ln rank."""
    n_bins = len(bins.LN_RANK_EDGES) - 1
    layers = value.shape[1]
    bin_ = lookup.ln_rank_bin[value] + n_bins * jnp.arange(layers, dtype=jnp.int32)[None]
    bin_ = jnp.where(_present(value, real), bin_, layers * n_bins)
    flat = scatter.add(jnp.zeros(layers * n_bins, jnp.int64), bin_.ravel())
    return flat.reshape(layers, n_bins)


def _fixed_point(value: jax.Array, lookup: Tables) -> jax.Array:
    """The value in units of 2**-16 as int32; of a rank its ln, from the table."""
    if jnp.issubdtype(value.dtype, jnp.integer):
        return lookup.ln_rank[value]
    return facts.fixed(value, jnp)


def _token_count(total, tally, values, real, lookup):  # type: ignore[no-untyped-def]
    token = jnp.where(real, values["token"], total.shape[0])
    return scatter.add(total, token)


def _token_sum(total, tally, values, real, lookup):  # type: ignore[no-untyped-def]
    value = values[tally.source[0]]
    amount = jnp.where(_present(value, real), _fixed_point(value, lookup), 0)
    token = jnp.where(real, values["token"], total.shape[0])
    return scatter.add(total, token, amount)


_UPDATES = {
    "count": functools.partial(_by_source, _counted),
    "sum": functools.partial(_by_source, _summed),
    "saturated": functools.partial(_by_source, _saturated),
    "ln_rank_histogram": functools.partial(_by_source, _binned),
    "token_count": _token_count,
    "token_sum": _token_sum,
}
