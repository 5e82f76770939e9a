"""Streamed moments of the residual streams: sums by class, and products, as integers.

Streams are centred by a reference mean of each layer and divided by a power of two near their root
mean square. Each value, and each sum of products over a block of positions, is then rounded once
and added as an int64: integer addition is associative, so no order of steps and no atomic of a GPU
changes a bit. Products are float64: the covariance within classes is a difference of two sums that
may be a hundred times as large, and float32 would leave three digits of its inverse.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Int64

from jaxlens.store.probe_file import TARGETS
from jaxlens.sweep.probe import data
from jaxlens.tally import update

BLOCK = 512
"""Positions whose products are summed before they are rounded."""

_ONE = 2.0**24
"""Fixed point of values and of products, in units of a layer.

Of 10^8 positions, values of 2^10 root mean squares each stay below 2^63, and so do squares of which
one in 2^10 components holds all.
"""

MAX_POSITIONS = 10**8


class Scale(NamedTuple):
    """What is subtracted from the streams, and what they are divided by.

    Attributes:
        reference: Mean of some positions.
        unit: A power of two.
    """

    reference: Float[Array | np.ndarray, "layer embed"]
    unit: Float[Array | np.ndarray, " layer"]


class Totals(NamedTuple):
    """What is added; all int64.

    Attributes:
        sums: Scaled streams of each class.
        products: Products of the scaled streams, over the positions of candidates.
        missing: Values that are not finite.
    """

    sums: Int64[Array | np.ndarray, "target class layer embed"]
    products: Int64[Array | np.ndarray, "layer target embed embed"]
    missing: Int64[Array | np.ndarray, ""]


def item_bytes(n_classes: int, n_embd: int) -> int:
    """Bytes of the totals of one layer."""
    return 8 * len(TARGETS) * n_embd * (n_classes + n_embd)


def zeros(n_layers: int, n_classes: int, n_embd: int) -> Totals:
    """Empty totals, on the host."""
    n_targets = len(TARGETS)
    return Totals(
        np.zeros((n_targets, n_classes, n_layers, n_embd), np.int64),
        np.zeros((n_layers, n_targets, n_embd, n_embd), np.int64),
        np.zeros((), np.int64),
    )


def no_scale(n_layers: int, n_embd: int) -> Scale:
    """Arrays for the scale of a checkpoint."""
    return Scale(np.zeros((n_layers, n_embd), np.float32), np.ones(n_layers, np.float32))


def scale(
    streams: Float[Array, "layer batch position embed"], slot: Int[np.ndarray, " row"]
) -> Scale:
    """The scale of the positions of a step, at least one, on the host."""
    flat = np.asarray(streams, np.float32).reshape(len(streams), -1, streams.shape[-1])[:, slot]
    reference = flat.mean(1, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.square(flat - reference[:, None], dtype=np.float64).mean((1, 2)))
    # One position alone, or a stream that is constant, has none.
    known = np.isfinite(spread) & (spread > 0)
    unit = np.exp2(np.ceil(np.log2(np.where(known, spread, 1.0))))
    return Scale(reference, unit.astype(np.float32))


def scaled(
    rows: Float[Array, "layer row embed"], scale: Scale, dtype: Any
) -> Float[Array, "layer row embed"]:
    """Streams in the units of `Scale`; exact in float64."""
    reference, unit = (jnp.asarray(one, dtype) for one in scale)
    return (rows.astype(dtype) - reference[:, None]) / unit[:, None, None]


def blocks(capacity: int) -> tuple[int, int]:
    """Positions of a block, and the capacity rounded up to whole blocks."""
    size = min(BLOCK, capacity)
    return size, -(-capacity // size) * size


def padded(values: Int[np.ndarray, "... row"], capacity: int, fill: int) -> Int[np.ndarray, "..."]:
    """Rows of a step, padded to whole blocks of its capacity."""
    room = blocks(capacity)[1] - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, room)], constant_values=fill)


def add(
    totals: Totals,
    streams: Float[Array, "layer batch position embed"],
    scale: Scale,
    rows: data.Rows,
    label: Int[np.ndarray, "target row"],
) -> Totals:
    """Adds the positions of one step; the buffers of the totals are used again.

    Args:
        totals: From `zeros` or an earlier call.
        streams: Of the layers that are added.
        scale: Of these layers.
        rows: Positions that count.
        label: Class of each target, -1 where it has none.
    """
    capacity = streams.shape[1] * streams.shape[2]
    with update.wide():
        return _add(
            totals,
            streams,
            scale,
            padded(rows.slot, capacity, 0),
            padded(label, capacity, -1),
            np.int32(-(-len(rows.slot) // blocks(capacity)[0])),
        )


@functools.partial(jax.jit, donate_argnums=0)
def _add(
    totals: Totals,
    streams: jax.Array,
    scale: Scale,
    slot: jax.Array,
    label: jax.Array,
    n_blocks: jax.Array,
) -> Totals:
    flat = streams.reshape(streams.shape[0], -1, streams.shape[-1])
    size = blocks(flat.shape[1])[0]
    targets = jnp.arange(label.shape[0], dtype=jnp.int32)[:, None]
    n_classes = totals.sums.shape[1]

    def block(number: jax.Array, totals: Totals) -> Totals:
        first = number * np.int32(size)
        here = jax.lax.dynamic_slice(slot, (first,), (size,))
        classes = jax.lax.dynamic_slice(label, (jnp.int32(0), first), (label.shape[0], size))
        known = classes >= 0
        rows = scaled(flat[:, here], scale, jnp.float64)
        # Beyond the last class nothing is added.
        classes = jnp.where(known, classes, np.int32(n_classes))
        fixed = jnp.rint(rows * _ONE).astype(jnp.int64).swapaxes(0, 1)
        fixed = jnp.broadcast_to(fixed, (label.shape[0], *fixed.shape))
        bad = ~jnp.isfinite(rows) & known.any(0)[None, :, None]
        return Totals(
            jnp.asarray(totals.sums).at[targets, classes].add(fixed, mode="drop"),
            totals.products + jax.lax.map(functools.partial(_products, known=known), rows),
            totals.missing + bad.sum(dtype=jnp.int64),
        )

    return jax.lax.fori_loop(np.int32(0), n_blocks, block, totals)


def _products(
    rows: Float[Array, "row embed"], known: jax.Array
) -> Int64[Array, "target embed embed"]:
    """Products of a layer over the positions of each target, in fixed point."""
    masked = jnp.where(known[..., None], rows[None], 0.0)
    product = jnp.einsum("tri,rj->tij", masked, rows, precision=jax.lax.Precision.HIGHEST)
    return jnp.rint(product * _ONE).astype(jnp.int64)


class Layer(NamedTuple):
    """Moments of one target at a layer, scaled, float64.

    Attributes:
        sums: Of each class.
        products: Over the positions of candidates.
    """

    sums: Float64[np.ndarray, "class embed"]
    products: Float64[np.ndarray, "embed embed"]


def of_layer(totals: Totals, layer: int, target: int) -> Layer:
    """The moments of a layer and a target, from totals on the host."""
    sums, products = totals.sums[target, :, layer], totals.products[layer, target]
    wide = np.asarray(products, np.float64) / _ONE
    return Layer(np.asarray(sums, np.float64) / _ONE, (wide + wide.T) / 2)
