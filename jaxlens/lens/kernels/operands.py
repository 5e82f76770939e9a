"""What kernels are given: arrays of whole tiles, with the bias explicit; what none reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlens.lens import divergences, ends, online, unembedding
from jaxlens.lens.options import Options


def is_one_pass(options: Options) -> bool:
    """Whether one pass gives all: no Jensen-Shannon, no reverse divergences."""
    reverse = [f"kl_to_{name}" for name in divergences.ENDS]
    return not options.wants(*divergences.SYMMETRIC, *reverse)


def biases(
    tiles: unembedding.TiledUnembedding, columns: int, more_columns: int
) -> Float[Array, "2 padded_column"]:
    """What to add to the logits of the rows, and to those of the ends as they are kept.

    Args:
        tiles: The unembedding.
        columns: Of its tiles.
        more_columns: Of padding, whose logit is `online.PADDING_LOGIT`.
    """
    bias = tiles.flat_bias
    if bias is None:
        both = jnp.zeros((2, columns), jnp.float32)
    else:
        # Where the ends' logits are kept with their bias, nothing is added to this zero.
        of_ends = ends.logits(jnp.zeros((1, 1, columns), jnp.float32), bias)
        both = jnp.stack([bias, of_ends[0, 0]])
    return jnp.pad(both, ((0, 0), (0, more_columns)), constant_values=online.PADDING_LOGIT)


def pad(x: jax.Array, *more: tuple[int, int]) -> jax.Array:
    """Zeros after the end of some axes, each ``(axis, number)``; most often none."""
    widths = [(0, 0)] * x.ndim
    for axis, number in more:
        widths[axis] = (0, number)
    return jnp.pad(x, widths) if any(number for _, number in more) else x
