"""From values of each layer to a ``Readout``: quantities without logits, and masking."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens.options import Options

MISSING_RANK = 0
MISSING_ID = -1


def reference_tokens(references: types.References) -> dict[str, jax.Array]:
    """Reference tokens that do not depend on the model, by name."""
    return {
        name: jnp.asarray(getattr(references, name))
        for name in ("input", "next", "foreign", "copy")
    }


def of_residuals(
    residuals: jax.Array, unembed: types.Unembed, references: types.References, options: Options
) -> dict[str, jax.Array]:
    """``norm``, ``retention`` and ``retention_foreign`` of the chosen layers, if asked for."""
    values: dict[str, jax.Array] = {}
    streams = residuals[np.asarray(options.layers)].astype(jnp.float32)
    if options.wants("norm"):
        values["norm"] = jnp.sqrt(jnp.square(streams).sum(-1))
    for name, tokens in (
        ("retention", references.input),
        ("retention_foreign", references.foreign),
    ):
        if options.wants(name):
            projection = _projection(streams, unembed.token_embedding, jnp.asarray(tokens))
            # On what enters the stream, which is the scaled row.
            scale = unembed.embedding_scale
            values[name] = projection if scale == 1.0 else projection / np.float32(scale)
    return values


def _projection(
    streams: Float[Array, "layer batch position embed"],
    table: Float[Array, "vocab embed"],
    tokens: Int[Array, "batch position"],
) -> Float[Array, "layer batch position"]:
    """Projection on the tokens' centred embeddings, 1 of the embedding itself."""
    rows = table[jnp.maximum(tokens, 0)].astype(jnp.float32)
    rows = rows - table.astype(jnp.float32).mean(0)[None, None]
    return (streams * rows[None]).sum(-1) / jnp.square(rows).sum(-1)[None]


def readout(
    values: dict[str, jax.Array], references: types.References, options: Options
) -> types.Readout:
    """Selects the requested quantities and masks padding and absent references.

    Args:
        values: Arrays ``[layer, batch, position, ...]`` of the chosen layers.
        references: Their mask and their -1 entries decide what is missing.
        options: The request.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in options.quantities:
            continue
        present = _present(name, references)
        fields[name] = _mask(name, value, present)
    return types.Readout(**fields)


def _present(name: str, references: types.References) -> jax.Array:
    """Where a quantity has a value: ``[batch, position]``, or with ``m`` for followed tokens."""
    mask = jnp.asarray(references.mask)
    kind, _, reference = name.partition("_")
    if kind not in ("rank", "ties", "logp", "retention") or reference in ("", "final"):
        return mask
    tokens = jnp.asarray(getattr(references, reference))
    mask = mask if tokens.ndim == mask.ndim else mask[..., None]
    return mask & (tokens >= 0)


def _mask(name: str, value: jax.Array, present: jax.Array) -> jax.Array:
    present = present[None]
    while present.ndim < value.ndim:
        present = present[..., None]
    if jnp.issubdtype(value.dtype, jnp.integer):
        missing = MISSING_ID if name == "top_id" else MISSING_RANK
        return jnp.where(present, value, jnp.int32(missing))
    return jnp.where(present, value.astype(jnp.float32), jnp.float32(np.nan))
