"""The production lens: two phases over vocabulary tiles, never all logits.

Tokens are taken in blocks. For one block, phase A multiplies only the two end layers with every
vocabulary tile and keeps their logits (``[2, block, vocab]``, the largest array here). That gives
the last layer's top-1, which is a reference token of every other layer, and both end
distributions. Phase B multiplies the interior layers with one tile after the other and reduces
each tile at once: running maximum, sum of exponentials, entropy and divergence moments, rank
counts, best tokens. Phase C (only for Jensen-Shannon, which needs the log-sum-exp first) sweeps
the interior layers again.

The unembedding is centred (its mean row and mean bias subtracted): no softmax or rank depends
on that, the moments become small, and bfloat16 operands round less.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import errors, schema, types
from jaxlens.lens import decoders, divergences, numerics, online, readout, tuning, unembedding
from jaxlens.lens.options import Options

Tile = tuple[jax.Array, jax.Array, jax.Array | None]
"""First column, weight and bias."""

Sums = divergences.Sums


def read(
    residuals: Float[Array, "layer batch position embed"],
    unembed: types.Unembed,
    references: types.References,
    options: Options,
    tiles: unembedding.TiledUnembedding | None = None,
) -> types.Readout:
    """Reads the lens at every chosen layer; same contract as ``reference.read``.

    Args:
        residuals: All ``n_layer + 1`` streams, before the final norm.
        unembed: Decoder and head.
        references: Tokens to compare with, and the mask of real positions.
        options: What to read, tile and block.
        tiles: ``unembedding.tile_unembedding(unembed, options)``; computed here by default.

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

    def one(number: jax.Array) -> dict[str, jax.Array]:
        rows = jax.lax.dynamic_slice_in_dim(flat, number * block, block, axis=1)
        tokens = jax.lax.dynamic_slice_in_dim(ids, number * block, block, axis=0)
        return _block(
            decoders.normalise(rows, unembed), tokens, tiles, inverse_temperature, options
        )

    with numerics.matmul_precision(options.precision):
        values = jax.lax.map(one, jnp.arange(n_blocks))
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
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, " layer"] | None,
    options: Options,
) -> dict[str, jax.Array]:
    """All quantities of one block of tokens, ``[chosen layer, token, ...]``."""
    layers = options.layers or ()
    last = normed.shape[0] - 1
    ends = np.array([0, last])
    interior = np.array([layer for layer in layers if 0 < layer < last], int)
    normed = normed.astype(tiles.weight.dtype)

    reference_logits = _reference_logits(normed, ids, tiles)
    end_beta = None if inverse_temperature is None else inverse_temperature[ends]
    beta = None if inverse_temperature is None else inverse_temperature[interior]
    end, end_logits = _phase_a(normed[ends], reference_logits[ends], ids, tiles, end_beta, options)
    final = end.top_id[1, :, :1]
    reference_logits = jnp.concatenate(
        [reference_logits, _reference_logits(normed, final, tiles)], -1
    )
    ids = jnp.concatenate([ids, final], -1)
    end = _count_final(end, end_logits, reference_logits[0, :, -1], final[:, 0])
    inner, cross, between = _phase_b(
        normed[interior], reference_logits[interior], ids, end_logits, end, tiles, beta, options
    )
    values = online.finish(end, reference_logits[ends]) | divergences.of_ends(
        end, between, end_beta
    )
    if interior.size:
        inside = online.finish(inner, reference_logits[interior]) | divergences.of_interior(
            inner, cross, end, beta
        )
        if options.wants(*divergences.SYMMETRIC):
            inside |= _phase_c(normed[interior], inner.log_total, end_logits, end, tiles)
        values = {name: jnp.concatenate([values[name], inside[name]]) for name in inside}
    row_of = {0: 0, last: 1} | {int(layer): 2 + row for row, layer in enumerate(interior)}
    rows = np.array([row_of[layer] for layer in layers])
    return {name: value[rows] for name, value in values.items()}


def _logits(
    rows: Float[Array, "layer token embed"],
    weight: Float[Array, "column embed"],
    bias: Float[Array, " column"] | None,
) -> Float[Array, "layer token column"]:
    contract = (((rows.ndim - 1,), (1,)), ((), ()))
    z = jax.lax.dot_general(rows, weight, contract, preferred_element_type=jnp.float32)
    # One set of logits for all reductions: fused into each of them, a small product would be
    # rounded differently each time, and a maximum not found again.
    z = jax.lax.optimization_barrier(z)
    return z if bias is None else tuning.keep(z + bias[None, None], "keeps_biased_logits")


def _reference_logits(
    normed: Float[Array, "layer token embed"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
) -> Float[Array, "layer token reference"]:
    """Logits of chosen tokens, from the same rounded operands as the tiles."""
    weight = tiles.weight.reshape(-1, normed.shape[-1])[ids]
    product = jnp.einsum("lte,tre->ltr", normed, weight, preferred_element_type=jnp.float32)
    return product if tiles.bias is None else product + tiles.bias.reshape(-1)[ids][None]


def _phase_a(
    rows: Float[Array, "2 token embed"],
    reference_logits: Float[Array, "2 token reference"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, "2"] | None,
    options: Options,
) -> tuple[online.Running, Float[Array, "2 token column"]]:
    """The two end layers: their state, and all their logits."""
    is_tempered = inverse_temperature is not None
    start = online.start(2, rows.shape[1], reference_logits.shape[-1], options.top_k, is_tempered)
    n_tiles, width, embed = tiles.weight.shape

    def scanned(rows: jax.Array, *tiled: jax.Array | None) -> tuple[online.Running, jax.Array]:
        def body(
            state: tuple[online.Running, jax.Array], tile: Tile
        ) -> tuple[tuple[online.Running, jax.Array], None]:
            running, end_logits = state
            column, weight, bias = tile
            z = _logits(rows, weight, bias)
            running, _, _ = online.update(
                running, z, column, reference_logits, ids, inverse_temperature
            )
            return (running, jax.lax.dynamic_update_slice_in_dim(end_logits, z, column, 2)), None

        nothing = jnp.zeros((2, rows.shape[1], n_tiles * width), jnp.float32)
        return jax.lax.scan(body, (start, nothing), tiled)[0]

    def at_once(
        rows: jax.Array, column: jax.Array, weight: jax.Array, bias: jax.Array | None
    ) -> tuple[online.Running, jax.Array]:
        z = _logits(rows, weight.reshape(-1, embed), None if bias is None else bias.reshape(-1))
        return online.update(start, z, column[0], reference_logits, ids, inverse_temperature)[0], z

    return tuning.by_platform(
        lambda chosen: scanned if chosen.scans_ends else at_once,
        *(rows, tiles.column, tiles.weight, tiles.bias),
    )


def _count_final(
    end: online.Running,
    end_logits: Float[Array, "2 token column"],
    at_final: Float[Array, " token"],
    final: Int[Array, " token"],
) -> online.Running:
    """Adds the final token to the end layers' references, now that it is known.

    At the last layer nothing is above it, by construction.
    """
    columns = jnp.arange(end_logits.shape[-1], dtype=jnp.int32)[None]
    above = (end_logits[0] > at_final[:, None]) & (columns != final[:, None])
    above = above.sum(-1, dtype=jnp.int32)
    both = jnp.stack([above, jnp.zeros_like(above)])[..., None]
    return end._replace(n_greater=jnp.concatenate([end.n_greater, both], -1))


def _phase_b(
    rows: Float[Array, "layer token embed"],
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    end_logits: Float[Array, "2 token column"],
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, " layer"] | None,
    options: Options,
) -> tuple[online.Running, Sums, Sums]:
    """The interior layers: their state, their moments with the end layers, and those of these.

    ``cross["kl_E"]`` is ``sum_v p_E(v) z(v)`` for end E; ``cross["kl_to_E"]`` is
    ``sum_v exp(z(v) - max_logit) z_E(v)`` where asked for. ``between["kl_E"]`` is the same of the
    other end's logits.
    """
    ends = list(enumerate(divergences.ENDS))
    reverse = [(i, f"kl_to_{name}") for i, name in ends if options.wants(f"kl_to_{name}")]
    symmetric = options.wants(*divergences.SYMMETRIC)

    def body(
        state: tuple[online.Running, Sums, Sums], tile: Tile
    ) -> tuple[tuple[online.Running, Sums, Sums], None]:
        running, cross, between = state
        column, weight, bias = tile
        end_z = jax.lax.dynamic_slice_in_dim(end_logits, column, len(weight), 2)
        log_p = end_z - end.log_total[..., None]
        p = jnp.exp(log_p)
        means = [divergences.mean(p[i], end_z[1 - i][None])[0] for i, _ in ends]
        new = {f"kl_{name}": means[i] for i, name in ends}
        if symmetric:
            new["js"] = divergences.jensen_shannon_terms(log_p[0], log_p[1]).sum(-1)
        between = {name: between[name] + value for name, value in new.items()}
        if not rows.shape[0]:
            return (running, cross, between), None
        z = _logits(rows, weight, bias)
        running, e, decay = online.update(
            running, z, column, reference_logits, ids, inverse_temperature
        )
        sums = {f"kl_{name}": cross[f"kl_{name}"] + divergences.mean(p[i], z) for i, name in ends}
        for i, name in reverse:
            sums[name] = cross[name] * decay + (e * end_z[i][None]).sum(-1)
        return (running, sums, between), None

    forward = [f"kl_{name}" for _, name in ends]
    none = jnp.zeros(rows.shape[:2], jnp.float32)
    cross = dict.fromkeys(forward + [name for _, name in reverse], none)
    between = dict.fromkeys(forward + ["js"] * symmetric, jnp.zeros(rows.shape[1], jnp.float32))
    is_tempered = inverse_temperature is not None
    start = online.start(
        rows.shape[0], rows.shape[1], reference_logits.shape[-1], options.top_k, is_tempered
    )
    xs = (tiles.column, tiles.weight, tiles.bias)
    return jax.lax.scan(body, (start, cross, between), xs)[0]


def _phase_c(
    rows: Float[Array, "layer token embed"],
    log_total: Float[Array, "layer token"],
    end_logits: Float[Array, "2 token column"],
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
) -> dict[str, jax.Array]:
    """Jensen-Shannon divergences of the interior layers from both ends."""

    def body(total: jax.Array, tile: Tile) -> tuple[jax.Array, None]:
        column, weight, bias = tile
        end_z = jax.lax.dynamic_slice_in_dim(end_logits, column, len(weight), 2)
        log_p = _logits(rows, weight, bias) - log_total[..., None]
        log_end = (end_z - end.log_total[..., None])[:, None]
        return total + divergences.jensen_shannon_terms(log_p[None], log_end).sum(-1), None

    start = jnp.zeros((2, *rows.shape[:2]), jnp.float32)
    total, _ = jax.lax.scan(body, start, (tiles.column, tiles.weight, tiles.bias))
    return {f"js_{name}": jnp.maximum(total[i], 0.0) for i, name in enumerate(divergences.ENDS)}
