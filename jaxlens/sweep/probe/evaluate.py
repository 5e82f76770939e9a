"""Evaluation on held-out positions: the probe beside the lens, among the same candidates.

Ranks are as in the lens: one plus the number of candidates with a greater score. What is counted is
an integer, so that no order of steps changes a bit.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int64

from jaxlens import types
from jaxlens.lens import decoders, reference
from jaxlens.store.probe_file import READOUTS, STATISTICS, TARGETS
from jaxlens.sweep.probe import data, moments
from jaxlens.tally import bins, facts, update

_TOP = 10


class Readers(NamedTuple):
    """What reads the streams of some layers.

    Attributes:
        weight: Of the probe, see ``discriminant.Discriminant``.
        bias: Of the probe; minus infinity where the class is no candidate of the target.
        scale: Of the same layers.
        layers: Numbers of the layers.
        unembed: Decoder and the rows of the head that belong to the classes.
    """

    weight: Float32[Array | np.ndarray, "layer target class embed"]
    bias: Float32[Array | np.ndarray, "layer target class"]
    scale: moments.Scale
    layers: Int[Array | np.ndarray, " layer"]
    unembed: types.Unembed


Cells = Int64[Array | np.ndarray, "cell layer readout statistic"]
"""Totals while they are added to; ``cell`` is target, rarity and group as one."""

_CELLS = len(TARGETS), bins.FREQUENCY_BINS, bins.GROUPS


def zeros(n_layers: int) -> Cells:
    """Empty totals, on the host."""
    return np.zeros((math.prod(_CELLS), n_layers, len(READOUTS), len(STATISTICS)), np.int64)


def arranged(
    totals: Cells,
) -> Int64[np.ndarray, "target readout statistic layer rarity group"]:
    """Totals as ``probe_file.Probe`` has them."""
    cells = np.asarray(totals).reshape(*_CELLS, *totals.shape[1:])
    return cells.transpose(0, 4, 5, 3, 1, 2)


def of_classes(unembed: types.Unembed, class_token: Int64[np.ndarray, " class"]) -> types.Unembed:
    """The unembedding of the classes alone."""
    bias = unembed.output_bias
    return unembed.replace(  # type: ignore[attr-defined]
        weight=jnp.asarray(unembed.weight)[class_token],
        output_bias=None if bias is None else jnp.asarray(bias)[class_token],
        embedding=None,
    )


def add(
    totals: Cells,
    streams: Float[Array, "stream batch position embed"],
    readers: Readers,
    rows: data.Rows,
    label: Int[np.ndarray, "target row"],
    precision: str,
) -> Cells:
    """Adds the positions of one step; the buffer of the totals is used again.

    Args:
        totals: Of the layers of ``readers``.
        streams: Of *all* layers, since the decoder treats the last one differently.
        readers: Probe and lens.
        rows: Held-out positions.
        label: Class of each target, -1 where it has none.
        precision: Operands of the lens' matrix multiplies.
    """
    capacity = streams.shape[1] * streams.shape[2]
    pad = functools.partial(moments.padded, capacity=capacity)
    n_blocks = np.int32(-(-len(rows.slot) // moments.blocks(capacity)[0]))
    columns = (pad(rows.slot, fill=0), pad(label, fill=-1), pad(rows.rarity, fill=0))
    with update.wide():
        return _add(
            totals, streams, readers, *columns, pad(rows.group, fill=0), n_blocks, precision
        )


@functools.partial(jax.jit, donate_argnums=0, static_argnums=8)
def _add(
    totals: jax.Array,
    streams: jax.Array,
    readers: Readers,
    slot: jax.Array,
    label: jax.Array,
    rarity: jax.Array,
    group: jax.Array,
    n_blocks: jax.Array,
    precision: str,
) -> jax.Array:
    flat = streams.reshape(streams.shape[0], -1, streams.shape[-1])
    size = moments.blocks(flat.shape[1])[0]

    def block(number: jax.Array, totals: jax.Array) -> jax.Array:
        def part(values: jax.Array) -> jax.Array:
            start = (jnp.int32(0),) * (values.ndim - 1) + (number * np.int32(size),)
            return jax.lax.dynamic_slice(values, start, (*values.shape[:-1], size))

        rows = flat[:, part(slot)]
        normed = decoders.normalise(rows, readers.unembed)[readers.layers]
        probed = moments.scaled(rows[readers.layers], readers.scale, jnp.float32)
        read = functools.partial(
            _layer, unembed=readers.unembed, label=part(label), precision=precision
        )
        values = jax.lax.map(lambda one: read(*one), (probed, normed, readers.weight, readers.bias))
        return _count(totals, values, part(label) >= 0, part(rarity), part(group))

    return jax.lax.fori_loop(np.int32(0), n_blocks, block, totals)


def _layer(
    probed: jax.Array,
    normed: jax.Array,
    weight: jax.Array,
    bias: jax.Array,
    *,
    unembed: types.Unembed,
    label: jax.Array,
    precision: str,
) -> Int64[Array, "target readout statistic row"]:
    """The statistics of one layer's positions."""
    logits = reference.logits(normed, unembed, precision)

    def of_target(one: Any) -> jax.Array:
        weight, bias, label = one
        scores = jnp.einsum("re,ce->rc", probed, weight, precision=jax.lax.Precision.HIGHEST)
        lens = jnp.where(jnp.isneginf(bias)[None], -jnp.inf, logits)
        return jnp.stack([_statistics(z, label) for z in (scores + bias[None], lens)])

    return jax.lax.map(of_target, (weight, bias, label))


def _statistics(z: jax.Array, label: jax.Array) -> Int64[Array, "statistic row"]:
    """Positions, hits and log-probability; of any value where there is no label."""
    own = jnp.take_along_axis(z, jnp.maximum(label, np.int32(0))[:, None], 1)
    rank = 1 + (z > own).sum(1, dtype=jnp.int32)
    logp = own[:, 0] - jax.nn.logsumexp(z, axis=1)
    values = jnp.ones_like(rank), rank <= 1, rank <= _TOP, facts.fixed(logp, jnp)
    return jnp.stack([value.astype(jnp.int64) for value in values])


def _count(
    totals: jax.Array,
    values: Int64[Array, "layer target readout statistic row"],
    known: Bool[Array, "target row"],
    rarity: jax.Array,
    group: jax.Array,
) -> jax.Array:
    """Adds values at the rarity of their target and the group of their document."""
    # Beyond the last cell nothing is added.
    target = jnp.arange(known.shape[0], dtype=jnp.int32)[:, None]
    cell = (target * np.int32(bins.FREQUENCY_BINS) + rarity) * np.int32(bins.GROUPS) + group[None]
    cell = jnp.where(known, cell, np.int32(len(totals)))
    added = jnp.moveaxis(values, (1, 4), (0, 1)).reshape(-1, *totals.shape[1:])
    return totals.at[cell.reshape(-1)].add(added, mode="drop")
