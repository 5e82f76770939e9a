"""What each thread of a warpgroup keeps: the online statistics of `online`, of its own columns.

A warpgroup multiplies 64 rows. Of every 8 columns of their product a thread holds two of two rows,
so that all it keeps are arrays ``[64, 8]``: of each row, 8 lanes, and lane ``i`` is of the columns
``8 n + i``. Threads exchange nothing before the last tile, after which the lanes are combined.

These functions are plain ``jax.numpy``: they run on any backend, and inside the kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens.lens import online

ROWS = 64
LANES = 8

FLOATS = ("max_logit", "sum_exp", "sum_exp_logit")
"""What `combine` gives of floats, always."""

OF_ENDS = ("kl_input", "kl_final", "between_input", "between_final")
"""What it gives where there are end layers to compare with."""

TEMPERED = "sum_exp_tempered"
"""What it gives where there are temperatures."""

_NO_COLUMN = np.int32(2**31 - 1)
# Exponentials are those of 2: Mosaic makes one instruction of them, of `exp` four more.
_LOG2_E = np.float32(np.log2(np.e))

Row = Float[Array, "64"]
Lanes = Float[Array, "64 8"]


class State(NamedTuple):
    """Statistics of each lane after some tiles; all ``[64, 8]``.

    Attributes:
        max_logit: Greatest logit.
        best: Its column, the first of equals.
        sum_exp: Sum of ``exp(z - max_logit)``.
        sum_exp_logit: Sum of ``exp(z - max_logit) z``.
        means: For either end, the sum of ``p z``; empty where the rows are those of the ends.
        between: For either end, the sum of ``p`` and the other end's logits; likewise.
        counts: For each reference, how many logits are above its own.
        sum_exp_tempered: Sum of ``exp((z - max_logit) / temperature)``, or None.
    """

    max_logit: jax.Array
    best: jax.Array
    sum_exp: jax.Array
    sum_exp_logit: jax.Array
    means: tuple[jax.Array, ...]
    between: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]
    sum_exp_tempered: jax.Array | None


def start(references: int, is_tempered: bool, n_ends: int) -> State:
    """The state before the first tile."""
    zero = jnp.zeros((ROWS, LANES), jnp.float32)
    none = jnp.zeros((ROWS, LANES), jnp.int32)
    return State(
        max_logit=jnp.full((ROWS, LANES), online.PADDING_LOGIT),
        best=none,
        sum_exp=zero,
        sum_exp_logit=zero,
        means=(zero,) * n_ends,
        between=(zero,) * n_ends,
        counts=(none,) * references,
        sum_exp_tempered=zero if is_tempered else None,
    )


def find_best(state: State, logits: list[Lanes], columns: list[Int[Array, "64 8"]]) -> State:
    """Each lane's greatest logit, and the sums relative to it.

    Args:
        state: Before the tile.
        logits: Of the tile, 8 columns at a time.
        columns: Which columns these are.
    """
    greatest, best = state.max_logit, state.best
    for z, column in zip(logits, columns, strict=True):
        best = jnp.where(z > greatest, column, best)
        greatest = jnp.maximum(greatest, z)
    return state._replace(max_logit=greatest, best=best)


def rescale(state: State, old: Lanes, temperature: jax.Array | None) -> State:
    """Sums that were relative to the greatest logit ``old``, relative to the present one."""
    shift = (old - state.max_logit) * _LOG2_E
    decay = jnp.exp2(shift)
    tempered = state.sum_exp_tempered
    if tempered is not None and temperature is not None:
        tempered = tempered * jnp.exp2(temperature * shift)
    return state._replace(
        sum_exp=state.sum_exp * decay,
        sum_exp_logit=state.sum_exp_logit * decay,
        sum_exp_tempered=tempered,
    )


def add_sums(
    state: State,
    z: Lanes,
    ends: list[Lanes],
    log2_totals: list[Row],
    temperature: jax.Array | None,
) -> State:
    """Adds 8 columns to all sums.

    Args:
        state: Whose greatest logit is that of the whole tile.
        z: Logits.
        ends: Logits of the end layers.
        log2_totals: The logarithms to base 2 of their sums of exponentials.
        temperature: The inverse temperature of the layer.
    """
    shift = (z - state.max_logit) * _LOG2_E
    e = jnp.exp2(shift)
    tempered = state.sum_exp_tempered
    if tempered is not None and temperature is not None:
        tempered = tempered + jnp.exp2(temperature * shift)
    # A multiply-add; its rounding is no worse than that of the logarithm.
    p = [
        jnp.exp2(end * _LOG2_E - spread(total))
        for end, total in zip(ends, log2_totals, strict=True)
    ]
    return state._replace(
        sum_exp=state.sum_exp + e,
        sum_exp_logit=state.sum_exp_logit + e * z,
        means=tuple(mean + p[i] * z for i, mean in enumerate(state.means)),
        between=tuple(mean + p[i] * ends[1 - i] for i, mean in enumerate(state.between)),
        sum_exp_tempered=tempered,
    )


def count_greater(
    state: State,
    logits: list[Lanes],
    columns: list[Int[Array, "64 8"]],
    reference_logits: list[Row],
    ids: list[Int[Array, "64"]],
) -> State:
    """Counts logits above each reference's, its own column left out as in `ranks`."""
    counts = list(state.counts)
    for r, (logit, own) in enumerate(zip(reference_logits, ids, strict=True)):
        least, column_of_own = spread(logit), spread(own)
        for z, column in zip(logits, columns, strict=True):
            is_above = (z > least) & (column != column_of_own)
            counts[r] = jnp.where(is_above, counts[r] + 1, counts[r])
    return state._replace(counts=tuple(counts))


def combine(
    state: State, temperature: jax.Array | None
) -> tuple[dict[str, Row], list[Int[Array, "64"]]]:
    """Statistics of all lanes of each row.

    Returns:
        Floats by name, the sums relative to the greatest logit of all; the best column, and the
        counts.
    """
    greatest = state.max_logit.max(1)
    shift = (state.max_logit - spread(greatest)) * _LOG2_E
    scale = jnp.exp2(shift)
    floats = {
        "max_logit": greatest,
        "sum_exp": (state.sum_exp * scale).sum(1),
        "sum_exp_logit": (state.sum_exp_logit * scale).sum(1),
    }
    if state.means:
        sums = (*state.means, *state.between)
        floats |= {name: x.sum(1) for name, x in zip(OF_ENDS, sums, strict=True)}
    if state.sum_exp_tempered is not None and temperature is not None:
        tempered = state.sum_exp_tempered * jnp.exp2(temperature * shift)
        floats[TEMPERED] = tempered.sum(1)
    is_best = state.max_logit == spread(greatest)
    best = jnp.where(is_best, state.best, _NO_COLUMN).min(1)
    return floats, [best, *(count.sum(1) for count in state.counts)]


def log2_of_total(log_total: Row) -> Row:
    """What `add_sums` takes, from a natural logarithm."""
    return log_total * _LOG2_E


def spread(row: jax.Array) -> jax.Array:
    """A value of each row, in all of its lanes."""
    return jax.lax.broadcast_in_dim(row, (ROWS, LANES), (0,))
