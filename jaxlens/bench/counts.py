"""Operations and bytes a token: what a stage has to compute and move at least."""

from __future__ import annotations

import jax.numpy as jnp

from jaxlens import types
from jaxlens.lens import numerics
from jaxlens.sweep.resolve import Resolved


def count_flops(architecture: types.Architecture, length: int) -> dict[str, float]:
    """Operations of the multiplies a token; attention sees half of the line on average."""
    embed, inner, layers = architecture.n_embd, architecture.n_inner, architecture.n_layer
    block = 2 * embed * (4 * embed + 2 * inner) + 2 * length * embed
    lens = 2.0 * (layers + 1) * embed * architecture.vocab_size
    forward = float(layers * block)
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
    kernels = layers * embed * (4 * embed + 2 * architecture.n_inner)
    weights_read = kernels * jnp.dtype(config.model.dtype).itemsize / step_tokens
    table = vocab * embed * jnp.dtype(operand).itemsize / (config.lens.block or step_tokens)
    forward = weights_read + streams
    lens = streams + 2 * table + 3 * 2 * vocab * 4
    return {"forward": forward, "lens": lens, "sweep": forward + lens}
