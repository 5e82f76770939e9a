"""Operations and bytes a token: what a stage has to compute and move at least."""

from __future__ import annotations

import math

import jax.numpy as jnp

from jaxlens import models, types
from jaxlens.lens import numerics
from jaxlens.sweep.resolve import Resolved


def count_flops(architecture: types.Architecture, length: int) -> dict[str, float]:
    """Operations of the multiplies a token; attention sees half of the line on average."""
    streams = architecture.n_layer + 1
    lens = 2.0 * streams * architecture.n_embd * architecture.vocab_size
    forward = models.forward_flops(architecture, length)
    return {"forward": forward, "lens": lens, "sweep": forward + lens}


def count_bytes(resolved: Resolved) -> dict[str, float]:
    """Bytes a token that cannot stay in a cache.

    Weights once a step; residual streams written and read; the unembedding once a block in each of
    the two phases; the end layers' logits written once and read twice.

    Args:
        resolved: The configuration.
    """
    config, architecture = resolved.config, resolved.architecture
    step_tokens = resolved.step_tokens
    embed, layers, vocab = architecture.n_embd, architecture.n_layer, architecture.vocab_size
    streams = (layers + 1) * embed * jnp.dtype(config.lens.residuals).itemsize
    operand = numerics.operand_dtype(config.lens.precision)
    expected = models.leaves(architecture)
    kernels = sum(
        math.prod(expected.stacked_shape(leaf))
        for leaf in expected.leaves
        if expected.is_layered(leaf) and len(leaf.shape) > 1
    )
    weights_read = kernels * jnp.dtype(config.model.dtype).itemsize / step_tokens
    table = vocab * embed * jnp.dtype(operand).itemsize / (config.lens.block or step_tokens)
    forward = weights_read + streams
    lens = streams + 2 * table + 3 * 2 * vocab * 4
    return {"forward": forward, "lens": lens, "sweep": forward + lens}
