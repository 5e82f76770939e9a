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
from jaxlens.lens.kernels import sorted_best

ROWS = 64
LANES = 8

SUMS = ("sum_exp", "sum_exp_logit")
"""What `combine` gives of floats, always, beside the best logits."""

OF_ENDS = ("kl_input", "kl_final", "between_input", "between_final")
"""What it gives where there are end layers to compare with."""

TEMPERED = "sum_exp_tempered"
"""What it gives where there are temperatures."""

# Exponentials are those of 2: Mosaic makes one instruction of them, of `exp` four more.
_LOG2_E = np.float32(np.log2(np.e))

Row = Float[Array, "64"]
Lanes = Float[Array, "64 8"]


class State(NamedTuple):
    """Statistics of each lane after some tiles; all ``[64, 8]``.

    Attributes:
        best: The best logits, best first.
        columns: Their columns, the first of equals first.
        sum_exp: Sum of ``exp(z - max_logit)``.
        sum_exp_logit: Sum of ``exp(z - max_logit) z``.
        means: For either end, the sum of ``p z``; empty where the rows are those of the ends.
        between: For either end, the sum of ``p`` and the other end's logits; likewise.
        counts: For each reference, how many logits are above its own.
        sum_exp_tempered: Sum of ``exp((z - max_logit) / temperature)``, or None.
    """

    best: tuple[jax.Array, ...]
    columns: tuple[jax.Array, ...]
    sum_exp: jax.Array
    sum_exp_logit: jax.Array
    means: tuple[jax.Array, ...]
    between: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]
    sum_exp_tempered: jax.Array | None

    @property
    def max_logit(self) -> jax.Array:
        """Greatest logit."""
        return self.best[0]


def best_logits(top_k: int) -> list[str]:
    """Names of the floats that `combine` gives for so many best columns, best first."""
    return ["max_logit", *(f"logit_{i}" for i in range(1, top_k))]


def start(references: int, top_k: int, is_tempered: bool, n_ends: int) -> State:
    """The state before the first tile."""
    zero = jnp.zeros((ROWS, LANES), jnp.float32)
    none = jnp.zeros((ROWS, LANES), jnp.int32)
    return State(
        best=(jnp.full((ROWS, LANES), online.PADDING_LOGIT),) * top_k,
        columns=(none,) * top_k,
        sum_exp=zero,
        sum_exp_logit=zero,
        means=(zero,) * n_ends,
        between=(zero,) * n_ends,
        counts=(none,) * references,
        sum_exp_tempered=zero if is_tempered else None,
    )


def find_best(state: State, logits: list[Lanes], columns: list[Int[Array, "64 8"]]) -> State:
    """Each lane's best logits and their columns; sums are left relative to the one before.

    Args:
        state: Before the tile.
        logits: Of the tile, 8 columns at a time.
        columns: Which columns these are.
    """
    best, best_columns = list(state.best), list(state.columns)
    for z, column in zip(logits, columns, strict=True):
        best, best_columns = sorted_best.insert(best, best_columns, z, column)
    return state._replace(best=tuple(best), columns=tuple(best_columns))


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
        Floats by name, the sums relative to the greatest logit of all; the best columns, and the
        counts.
    """
    logits, columns = _combine_best(state)
    shift = (state.max_logit - spread(logits[0])) * _LOG2_E
    scale = jnp.exp2(shift)
    floats = dict(zip(best_logits(len(logits)), logits, strict=True)) | {
        "sum_exp": (state.sum_exp * scale).sum(1),
        "sum_exp_logit": (state.sum_exp_logit * scale).sum(1),
    }
    if state.means:
        sums = (*state.means, *state.between)
        floats |= {name: x.sum(1) for name, x in zip(OF_ENDS, sums, strict=True)}
    if state.sum_exp_tempered is not None and temperature is not None:
        tempered = state.sum_exp_tempered * jnp.exp2(temperature * shift)
        floats[TEMPERED] = tempered.sum(1)
    return floats, [*columns, *(count.sum(1) for count in state.counts)]


def _combine_best(state: State) -> tuple[list[Row], list[Int[Array, "64"]]]:
    """Logits and columns of the best of all lanes, the first of equals first."""
    best, columns = list(state.best), list(state.columns)
    logits, chosen = [], []
    while best:
        # Every lane is sorted, and so are its equals: the best that is left leads one of them.
        greatest = best[0].max(1)
        of_best = jnp.where(best[0] == spread(greatest), columns[0], sorted_best.NO_COLUMN)
        column = of_best.min(1)
        logits.append(greatest)
        chosen.append(column)
        best, columns = sorted_best.without_first(best, columns, of_best == spread(column))
    return logits, chosen


def log2_of_total(log_total: Row) -> Row:
    """What `add_sums` takes, from a natural logarithm."""
    return log_total * _LOG2_E


def spread(row: jax.Array) -> jax.Array:
    """A value of each row, in all of its lanes."""
    return jax.lax.broadcast_in_dim(row, (ROWS, LANES), (0,))
