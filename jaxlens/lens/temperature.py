"""One temperature a layer: how much of a divergence is only a distribution that is too flat.

``KL(p_last || softmax(z / tau))`` is convex in ``1 / tau``, with the derivative ``E_tau[z] -
E_last[z]``; so the temperature that minimises its mean over tokens is where the mean of that
derivative crosses zero. The search takes a grid, and then a finer one within a cell of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxlens import types
from jaxlens.lens import decoders, reference, tuning

LIMITS = (1 / 64, 64.0)
"""Smallest and largest temperature of the search."""

DECIMALS = 3
"""Digits after the point that are kept, so that the last bits of a sum decide nothing."""

POINTS = 16
"""Points of a grid of inverse temperatures, evenly spaced in their logarithm."""

Points = Float[np.ndarray, "layer point"]


def search(slopes_at: Callable[[Points], Points], n_layers: int) -> tuple[float, ...]:
    """Temperatures at which slopes cross zero.

    Args:
        slopes_at: Gives, at inverse temperatures of each layer, the sum or mean of `slopes` over
            tokens; is called twice.
        n_layers: Number of layers.

    Returns:
        One a layer, rounded to ``DECIMALS``, within ``LIMITS``; of the last layer exactly 1.
    """
    low, high = (np.full(n_layers, np.log(1 / limit)) for limit in reversed(LIMITS))
    root = low
    for _ in range(2):
        grid = np.linspace(low, high, POINTS, axis=-1)
        low, high, root = _crossing(grid, slopes_at(np.exp(grid).astype(np.float32)))
    temperatures = np.maximum(np.round(np.exp(-root), DECIMALS), 10.0**-DECIMALS)
    temperatures[-1] = 1.0
    return tuple(temperatures.tolist())


def of_batch(
    residuals: Float[types.Array, "layer batch position embed"],
    mask: Bool[np.ndarray, "batch position"],
    unembed: types.Unembed,
    precision: str,
) -> tuple[float, ...]:
    """Temperatures that fit the real positions of one batch."""

    def slopes_at(inverse_temperature: Points) -> Points:
        return np.asarray(slopes(residuals, mask, unembed, inverse_temperature, precision))

    return search(slopes_at, residuals.shape[0])


@functools.partial(jax.jit, static_argnums=4)
def slopes(
    residuals: Float[Array, "layer batch position embed"],
    mask: Bool[Array, "batch position"],
    unembed: types.Unembed,
    inverse_temperature: Float[Array, "layer point"],
    precision: str,
) -> Float[Array, "layer point"]:
    """Sum over real positions of ``E_tau[z] - E_last[z]``.

    Args:
        residuals: All streams, before the final norm.
        mask: Which positions are real.
        unembed: Decoder and head.
        inverse_temperature: Inverse temperatures to try, of each layer.
        precision: Operands of the matrix multiplies.
    """
    normed = decoders.normalise(residuals, unembed)
    flat = normed.reshape(normed.shape[0], -1, normed.shape[-1])

    def make(chosen: tuning.Tuning) -> Callable[..., jax.Array]:
        return functools.partial(_slopes, chosen, precision)

    return tuning.by_platform(make, flat, mask.reshape(-1), unembed, inverse_temperature)


def _slopes(
    chosen: tuning.Tuning,
    precision: str,
    normed: Float[Array, "layer token embed"],
    real: Bool[Array, " token"],
    unembed: types.Unembed,
    inverse_temperature: Float[Array, "layer point"],
) -> Float[Array, "layer point"]:
    n_layers, _, embed = normed.shape
    block = min(chosen.slopes_block, real.size)
    ragged = -real.size % block
    flat = jnp.pad(normed, ((0, 0), (0, ragged), (0, 0)))
    blocks = flat.reshape(n_layers, -1, block, embed).swapaxes(0, 1)
    weights = jnp.pad(real, (0, ragged)).reshape(-1, block).astype(jnp.float32)

    def one(total: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        rows, weight = xs
        p = jax.nn.softmax(reference.logits(rows[-1], unembed, precision), axis=-1)

        def layer(xs: tuple[jax.Array, jax.Array]) -> Float[Array, " point"]:
            z = reference.logits(xs[0], unembed, precision)
            z = z - z.max(-1, keepdims=True)
            mean = (p * z).sum(-1)

            def slope(beta: jax.Array) -> jax.Array:
                return (weight * (_mean_at(z, beta) - mean)).sum()

            return jax.vmap(slope)(xs[1]) if chosen.slopes_at_once else jax.lax.map(slope, xs[1])

        return total + jax.lax.map(layer, (rows, inverse_temperature)), None

    start = jnp.zeros(inverse_temperature.shape, jnp.float32)
    return jax.lax.scan(one, start, (blocks, weights))[0]


def _mean_at(z: Float[Array, "token vocab"], beta: Float[Array, ""]) -> Float[Array, " token"]:
    """Mean logit at an inverse temperature; the greatest logit is 0."""
    e = jnp.exp(beta * z)
    return (e * z).sum(-1) / e.sum(-1)


def _crossing(grid: Points, slope: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the cell in which an ascending slope crosses zero, and the crossing itself.

    The crossing is that of the parabola through the ends and the next point, taken as a function
    of the slope. Where the slope does not cross zero, the nearest end of the grid counts.
    """
    above = (slope > 0).argmax(-1)
    above = np.where((slope > 0).any(-1), np.maximum(above, 1), grid.shape[-1] - 1)
    third = np.where(above > 1, above - 2, above + 1)
    lines = np.arange(len(grid))
    x = np.stack([grid[lines, knot] for knot in (above - 1, above, third)])
    y = np.stack([slope[lines, knot] for knot in (above - 1, above, third)]).astype(np.float64)
    root = np.zeros(len(grid))
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            root += x[i] * y[j] * y[k] / ((y[i] - y[j]) * (y[i] - y[k]))
    # Equal slopes give no parabola, and where there is no crossing it is far away.
    root = np.where(np.isfinite(root), root, np.where(y[1] > 0, x[0], x[1]))
    return x[0], x[1], np.clip(root, x[0], x[1])
