"""The identity gate: the production lens must be the model at the last layer.

Whatever kernel, precision and tiles are chosen, the last layer's readout is the model's own
prediction. The gate measures how far its log-probabilities are from a plain float32 readout of
the same residuals, and refuses to go on where they differ by more than rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import errors, numerics, types
from jaxlens.lens import decoders, reference
from jaxlens.lens.options import Options

TOKENS = 64
"""Positions that the gate reads."""

LIMITS = {"float32": 1e-3, "bf16x3": 1e-3, "tf32": 0.1, "bfloat16": 0.1}
"""Largest accepted difference of log-probabilities in nats, by operand precision."""

_PROBES = 64


def require(
    read: Callable[..., types.Readout],
    residuals: jax.Array,
    unembed: types.Unembed,
    tokens: np.ndarray,
    options: Options,
    *prepared: Any,
) -> float:
    """Measures the production lens against the model's own last layer.

    Args:
        read: The production lens.
        residuals: ``[layer, batch, position, embed]`` of about ``TOKENS`` positions.
        unembed: Decoder and head.
        tokens: ``[batch, position]``.
        options: The production options.
        prepared: What else the lens takes, such as its table.

    Returns:
        Greatest absolute difference of log-probabilities, in nats, over the input tokens, the
        top-1 and a spread of the vocabulary.

    Raises:
        NumericalError: It is beyond ``LIMITS``, or not finite.
    """
    measured = float(_deviation(read, residuals, unembed, jnp.asarray(tokens), options, prepared))
    limit = LIMITS[options.precision]
    if not measured <= limit:
        raise errors.NumericalError(
            f"identity gate: last-layer log-probabilities are off by {measured:.3g} nat, "
            f"more than {limit:g} for {options.precision} operands",
            "use --set lens.precision=float32, or lens.implementation=reference, and report this",
        )
    return measured


def _deviation(
    read: Callable[..., types.Readout],
    residuals: jax.Array,
    unembed: types.Unembed,
    tokens: jax.Array,
    options: Options,
    prepared: tuple[Any, ...],
) -> jax.Array:
    vocab_size = unembed.weight.shape[0]
    probes = jnp.asarray(np.linspace(0, vocab_size - 1, min(_PROBES, vocab_size)).astype(np.int32))
    probes = jnp.broadcast_to(probes, (*tokens.shape, probes.size))
    absent = jnp.full(tokens.shape, -1, jnp.int32)
    mask = jnp.ones(tokens.shape, bool)
    references = types.References(tokens, absent, absent, absent, mask, follow=probes)
    options = dataclasses.replace(
        options, quantities=("logp_input", "logp_follow", "top_logp"), layers=(-1,)
    )
    got = jax.jit(read, static_argnums=3)(residuals, unembed, references, options, *prepared)
    last = decoders.normalise(residuals, unembed)[-1]
    log_p = numerics.log_softmax(reference.logits(last, unembed))
    ids = jnp.concatenate([tokens[..., None], probes], -1)
    expected = jnp.take_along_axis(log_p, ids, -1)
    expected = jnp.concatenate([expected, log_p.max(-1, keepdims=True)], -1)
    parts = [got.logp_input[0][..., None], got.logp_follow[0], got.top_logp[0][..., :1]]
    return jnp.abs(jnp.concatenate(parts, -1) - expected).max()
