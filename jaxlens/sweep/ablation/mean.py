"""The mean stream of a corpus, which takes the place of what an ablation removes."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlens import models, types
from jaxlens.lens import numerics
from jaxlens.sweep.ablation import compute, passages


def mean_stream(
    engine: compute.Engine, windows: Iterable[passages.Window], length: int, limit: int
) -> tuple[Float[np.ndarray, "layer embed"], int]:
    """Mean of each layer's stream over positions of the corpus that do not begin a context.

    Args:
        engine: The model.
        windows: Contexts.
        length: Tokens of a context at most.
        limit: Positions after which no further window is taken.

    Returns:
        The mean, and the number of positions it is over.
    """
    total: Any = 0.0
    count, lines = 0, max(1, engine.step_tokens // length)
    batch: list[np.ndarray] = []
    for window in windows:
        if count >= limit:
            break
        count += len(window.tokens) - 1
        batch.append(window.tokens)
        if len(batch) == lines:
            total, batch = total + _sums(engine, batch, length, lines), []
    if batch:
        total = total + _sums(engine, batch, length, lines)
    return np.asarray(total / max(count, 1)).astype(np.float32), count


def _sums(engine: compute.Engine, batch: list[np.ndarray], length: int, lines: int) -> np.ndarray:
    tokens, mask = np.zeros((lines, length), np.int32), np.zeros((lines, length), bool)
    for i, ids in enumerate(batch):
        tokens[i, : len(ids)], mask[i, 1 : len(ids)] = ids, True
    with numerics.matmul_precision(engine.program.precision):
        sums = _sum_streams(engine.program, engine.weights[0][0], tokens, mask)
    # In float64 line by line, so that the shape of a batch does not show.
    return np.asarray(sums, np.float64).sum(1)


@functools.partial(jax.jit, static_argnums=0)
def _sum_streams(
    program: compute.Program,
    params: types.Params,
    tokens: Int[Array, "batch position"],
    mask: Bool[Array, "batch position"],
) -> Float[Array, "layer batch embed"]:
    streams = models.residuals(params, program.architecture, tokens, dtype="float32")
    return jnp.where(mask[None, :, :, None], streams, 0.0).sum(2)
