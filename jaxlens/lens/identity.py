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

from jaxlens import errors, types
from jaxlens.lens import decoders, numerics, reference
from jaxlens.lens.options import Options

TOKENS = 64
"""Positions that the gate reads."""

LIMITS = {"float32": 1e-3, "bf16x3": 1e-3, "tf32": 0.1, "bfloat16": 0.1}
"""Largest accepted difference of log-probabilities in nats, by operand precision."""

_PROBES = 64
_PROBES_OF_KERNEL = 8  # a kernel counts few reference tokens


def require(
    read: Callable[..., types.Readout],
    residuals: jax.Array,
    unembed: types.Unembed,
    tokens: np.ndarray,
    options: Options,
    *prepared: Any,
    has_kernel: bool = False,
) -> float:
    """Measures the production lens against the model's own last layer.

    Args:
        read: The production lens.
        residuals: ``[layer, batch, position, embed]`` of about ``TOKENS`` positions.
        unembed: Decoder and head.
        tokens: ``[batch, position]``.
        options: The production options.
        prepared: What else the lens takes, such as its table.
        has_kernel: Whether the layers between the ends are read by a kernel, which then reads
            the last stream as one of them too.

    Returns:
        Greatest absolute difference of log-probabilities, in nats, over the input tokens, the
        top-1 and a spread of the vocabulary.

    Raises:
        NumericalError: It is beyond ``LIMITS``, or not finite.
    """
    last = dataclasses.replace(options, layers=(-1,))
    measured = float(_deviation(read, residuals, unembed, tokens, last, prepared, _PROBES))
    if has_kernel:
        # In the middle, and decoded as at the end.
        streams = residuals[np.array([0, -1, -1])]
        head = dataclasses.replace(unembed, kind="final_norm")
        middle = dataclasses.replace(options, layers=(1,))
        deviation = _deviation(read, streams, head, tokens, middle, prepared, _PROBES_OF_KERNEL)
        measured = float(np.maximum(measured, deviation))  # NaN stays NaN
    limit = LIMITS[options.precision]
    if not measured <= limit:
        raise errors.NumericalError(
            f"identity gate: last-layer log-probabilities are off by {measured:.3g} nat, "
            f"more than {limit:g} for {options.precision} operands",
            "use --set lens.precision=float32, or lens.implementation="
            + ("tiled" if has_kernel else "reference")
            + ", and report this",
        )
    return measured


def _deviation(
    read: Callable[..., types.Readout],
    residuals: jax.Array,
    unembed: types.Unembed,
    tokens: np.ndarray,
    options: Options,
    prepared: tuple[Any, ...],
    n_probes: int,
) -> jax.Array:
    vocab_size = unembed.weight.shape[0]
    probes = np.linspace(0, vocab_size - 1, min(n_probes, vocab_size)).astype(np.int32)
    probes = np.broadcast_to(probes, (*tokens.shape, probes.size))
    tokens = tokens.astype(np.int32)
    absent, mask = np.full(tokens.shape, -1, np.int32), np.ones(tokens.shape, bool)
    references = jax.device_put(
        types.References(tokens, absent, absent, absent, mask, probes)  # type: ignore[arg-type]
    )
    options = dataclasses.replace(options, quantities=("logp_input", "logp_follow", "top_logp"))
    # Two programs, so that what is measured is not compiled together with what it is held against.
    got = jax.jit(read, static_argnums=3)(residuals, unembed, references, options, *prepared)
    ids = np.concatenate([tokens[..., None], probes], -1)
    return _difference(got.logp_input, got.logp_follow, got.top_logp, residuals, unembed, ids)


@jax.jit
def _difference(
    own: jax.Array,
    probed: jax.Array,
    best: jax.Array,
    residuals: jax.Array,
    unembed: types.Unembed,
    ids: jax.Array,
) -> jax.Array:
    last = decoders.normalise(residuals, unembed)[-1]
    log_p = numerics.log_softmax(reference.logits(last, unembed))
    expected = jnp.take_along_axis(log_p, ids, -1)
    expected = jnp.concatenate([expected, log_p.max(-1, keepdims=True)], -1)
    parts = [own[0][..., None], probed[0], best[0][..., :1]]
    return jnp.abs(jnp.concatenate(parts, -1) - expected).max()
