"""The production lens: two phases over vocabulary tiles, never all logits.

Tokens are taken in blocks. For one block, phase A multiplies only the two end layers with every
vocabulary tile and keeps their logits (``[2, block, vocab]``, the largest array here). That gives
the last layer's top-1, which is a reference token of every other layer, and both end
distributions. Phase B multiplies the interior layers with one tile after the other and reduces
each tile at once: running maximum, sum of exponentials, entropy and divergence moments, rank
counts, best tokens. Phase C (only for Jensen-Shannon, which needs the log-sum-exp first) sweeps
the interior layers again.

The unembedding is centred (its mean row and mean bias subtracted): no softmax or rank depends
on that, the moments become small, and bfloat16 operands round less. Where the model caps its
logits it is not: a cap is no function of logits up to a constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import errors, schema, types
from jaxlens.lens import (
    decoders,
    divergences,
    ends,
    interior,
    numerics,
    online,
    partition,
    readout,
    tuning,
    unembedding,
)
from jaxlens.lens.options import Options


def read(
    residuals: Float[Array, "layer batch position embed"],
    unembed: types.Unembed,
    references: types.References,
    options: Options,
    tiles: unembedding.TiledUnembedding | None = None,
    read_interior: Callable[..., Any] = interior.read,
    read_ends: Callable[..., Any] = ends.read,
) -> types.Readout:
    """Reads the lens at every chosen layer; same contract as ``reference.read``.

    Args:
        residuals: All ``n_layer + 1`` streams, before the final norm.
        unembed: Decoder and head.
        references: Tokens to compare with, and the mask of real positions.
        options: What to read, tile and block.
        tiles: ``unembedding.tile_unembedding(unembed, options)``; computed here by default.
        read_interior: What reads the interior layers of a block; takes and returns what
            ``interior.read`` does.
        read_ends: What reads the end layers of a block; takes and returns what ``ends.read`` does.

    Returns:
        Every quantity of ``options.quantities``, ``[layer, batch, position, ...]``.

    Raises:
        ConfigError: A quantity that only the reference computes.
    """
    only_reference = [name for name in options.quantities if name in schema.REFERENCE_ONLY]
    if only_reference:
        raise errors.ConfigError(
            f"the tiled lens does not count {', '.join(only_reference)}",
            "use the reference lens for ties",
        )
    n_layers, batch, length, embed = residuals.shape
    options = options.for_model(n_layers, unembed.weight.shape[0])
    tiles = unembedding.tile_unembedding(unembed, options) if tiles is None else tiles
    block = min(
        options.block or tuning.choose_block(tiles.vocab_size, batch * length), batch * length
    )
    n_blocks = -(-batch * length // block)
    ragged = n_blocks * block - batch * length
    inverse_temperature = decoders.inverse_temperature(unembed, options)
    flat = jnp.pad(residuals.reshape(n_layers, -1, embed), ((0, 0), (0, ragged), (0, 0)))
    ids = jnp.pad(_reference_ids(references), ((0, ragged), (0, 0)))

    def blocks(part: partition.Part, *given: Any) -> dict[str, jax.Array]:
        tiles, flat, ids, beta, scale, bias = given
        norm = dataclasses.replace(unembed, scale=scale, bias=bias)

        def one(number: jax.Array) -> dict[str, jax.Array]:
            rows = jax.lax.dynamic_slice_in_dim(flat, number * block, block, axis=1)
            tokens = jax.lax.dynamic_slice_in_dim(ids, number * block, block, axis=0)
            normed = decoders.normalise(rows, norm)
            return _block(normed, tokens, part, tiles, beta, options, read_interior, read_ends)

        return jax.lax.map(one, jnp.arange(n_blocks))

    with numerics.matmul_precision(options.precision):
        norm = unembed.scale, unembed.bias
        values = partition.read(blocks, tiles, flat, ids, inverse_temperature, *norm)
    values = {name: _unblock(value, batch, length) for name, value in values.items()}
    values = _name_references(values, references)
    values |= readout.of_residuals(residuals, unembed, references, options)
    return readout.readout(values, references, options)


def _reference_ids(references: types.References) -> Int[Array, "token reference"]:
    """Known reference tokens side by side; absent ones become 0 and are masked at the end."""
    columns = [ids[..., None] for ids in readout.reference_tokens(references).values()]
    if references.follow is not None:
        columns.append(jnp.asarray(references.follow))
    ids = jnp.maximum(jnp.concatenate(columns, -1), 0)
    return ids.reshape(-1, ids.shape[-1])


def _name_references(
    values: dict[str, jax.Array], references: types.References
) -> dict[str, jax.Array]:
    """Splits ``rank`` and ``logp`` into a quantity a reference; the final token is the last."""
    named = dict(values)
    for kind in ("rank", "logp"):
        value = named.pop(kind)
        names = list(readout.reference_tokens(references))
        named |= {f"{kind}_{name}": value[..., i] for i, name in enumerate(names)}
        named[f"{kind}_follow"] = value[..., len(names) : -1]
        named[f"{kind}_final"] = value[..., -1]
    return named


def _unblock(value: jax.Array, batch: int, length: int) -> jax.Array:
    """``[block number, layer, token, ...]`` to ``[layer, batch, position, ...]``."""
    value = jnp.moveaxis(value, 0, 1)
    value = value.reshape(value.shape[0], -1, *value.shape[3:])[:, : batch * length]
    return value.reshape(value.shape[0], batch, length, *value.shape[2:])


def _block(
    normed: Float[Array, "layer token embed"],
    ids: Int[Array, "token reference"],
    part: partition.Part,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, " layer"] | None,
    options: Options,
    read_interior: Callable[..., Any],
    read_ends: Callable[..., Any],
) -> dict[str, jax.Array]:
    """All quantities of one block of tokens, ``[chosen layer, token, ...]``."""
    last = normed.shape[0] - 1
    outer = np.array([0, last])
    middle = np.array([layer for layer in options.layers or () if 0 < layer < last], int)
    normed = normed.astype(tiles.weight.dtype)

    reference_logits = part.reference_logits(normed, ids, tiles)
    ids = part.within(ids)
    end_beta, beta = (_chosen(inverse_temperature, layers) for layers in (outer, middle))
    end, end_logits = read_ends(
        normed[outer], reference_logits[outer], ids, tiles, end_beta, options
    )
    end, _ = part.merge(end, end_beta)
    final = end.top_id[1, :, :1]
    final_logits = part.reference_logits(normed, final, tiles)
    reference_logits = jnp.concatenate(
        [reference_logits, tuning.keep(final_logits, "keeps_final_logits")], -1
    )
    ids = jnp.concatenate([ids, part.within(final)], -1)
    first = ends.logits(end_logits[:1], tiles.flat_bias, tiles.softcap)[0]
    above = ends.count_above(first, reference_logits[0, :, -1], ids[:, -1])
    end = ends.add_final(end, part.sum(above))
    inner, cross, between = read_interior(
        normed[middle], reference_logits[middle], ids, end_logits, end, tiles, beta, options
    )
    inner, cross = part.merge(inner, beta, cross)
    between = part.sum(between)
    values = online.finish(end, reference_logits[outer]) | divergences.of_ends(
        end, between, end_beta
    )
    if middle.size:
        inside = online.finish(inner, reference_logits[middle]) | divergences.of_interior(
            inner, cross, end, beta
        )
        if options.wants(*divergences.SYMMETRIC):
            inside |= part.sum(
                interior.jensen_shannon(normed[middle], inner.log_total, end_logits, end, tiles)
            )
        values = {name: jnp.concatenate([values[name], inside[name]]) for name in inside}
    rows = _rows(options.layers or (), last, middle)
    return {name: value[rows] for name, value in values.items()}


def _chosen(
    values: Float[Array, " layer"] | None, layers: Int[np.ndarray, " chosen"]
) -> Float[Array, " chosen"] | None:
    return None if values is None else values[layers]


def _rows(
    layers: Sequence[int], last: int, middle: Int[np.ndarray, " layer"]
) -> Int[np.ndarray, " chosen"]:
    """Where the chosen layers are, after the two ends and the interior layers."""
    row_of = {0: 0, last: 1} | {int(layer): 2 + row for row, layer in enumerate(middle)}
    return np.array([row_of[layer] for layer in layers])
