"""The shape of a quantity along depth: jumps, monotony, scrambles.

A curve is a value at each layer 0 .. L, its last axis; other axes are kept. Estimates are of the
shape of the mean curve, not the mean of the shapes of tokens: noise of single tokens would add
steps up and down that no mean has.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def jump_share(curve: Float[np.ndarray, "... layer"]) -> Float[np.ndarray, "..."]:
    """φ: the first step's share of the whole way, ``|m_1 - m_0| / sum |m_{l+1} - m_l|``.

    Returns:
        In [0, 1], 1/L for equal steps; NaN where the curve is flat or has no value.
    """
    steps = np.abs(np.diff(curve, axis=-1))
    way = steps.sum(axis=-1)
    none = np.full(np.shape(way), np.nan)
    return np.divide(steps[..., 0], way, out=none, where=way > 0)


def jump_ratio(curve: Float[np.ndarray, "... layer"]) -> Float[np.ndarray, "..."]:
    """D: the first step over the median of the later ones, in absolute value.

    Returns:
        NaN where the median of the later steps is 0 or there are none.
    """
    steps = np.abs(np.diff(curve, axis=-1))
    if steps.shape[-1] < 2:
        return np.full(steps.shape[:-1], np.nan)
    later = np.median(steps[..., 1:], axis=-1)
    none = np.full(np.shape(later), np.nan)
    return np.divide(steps[..., 0], later, out=none, where=later > 0)


def monotone_share(
    curve: Float[np.ndarray, "... layer"], falling: bool = True
) -> Float[np.ndarray, "..."]:
    """Share of steps that do not go against the direction; a flat step does not."""
    steps = np.diff(curve, axis=-1)
    along = (steps <= 0) if falling else (steps >= 0)
    return np.where(np.isnan(steps).any(axis=-1), np.nan, along.mean(axis=-1))


def prominence(curve: Float[np.ndarray, "... layer"]) -> Float[np.ndarray, "..."]:
    """Scramble and recovery: how far the curve rises above its lowest points on both sides.

    The largest, over layers, of the value minus the higher one of the lowest value before and
    the lowest after: of ln rank, how much had to be recovered. In the unit of the curve; 0 for a
    monotone one.
    """
    curve = np.asarray(curve)
    before = np.minimum.accumulate(curve, axis=-1)
    after = np.minimum.accumulate(curve[..., ::-1], axis=-1)[..., ::-1]
    return (curve - np.maximum(before, after)).max(axis=-1)
