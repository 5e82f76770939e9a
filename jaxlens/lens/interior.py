"""The interior layers of the tiled lens: nearly all multiplies, of one block of tokens at a time.

`read` is the seam for a kernel: what takes its arguments and returns its state and sums may stand
in its place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlens.lens import divergences, ends, online, ranks, tuning, unembedding
from jaxlens.lens.options import Options

Sums = divergences.Sums


def read(
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

    Where `tuning` bounds the rows, tokens are taken in groups, to the same bits.

    ``cross["kl_E"]`` is ``sum_v p_E(v) z(v)`` for end E; ``cross["kl_to_E"]`` is
    ``sum_v exp(z(v) - max_logit) z_E(v)`` where asked for. ``between["kl_E"]`` is the same of the
    other end's logits.
    """
    layers, tokens, _ = rows.shape
    whole = functools.partial(_read, options)

    def make(chosen: tuning.Tuning) -> Callable[..., Any]:
        size = tuning.group_size(tokens, layers, tiles.weight.shape[1], chosen.interior_rows)
        return whole if size == tokens else functools.partial(_in_groups, whole, size)

    given = (rows, reference_logits, ids, end_logits, end, tiles, inverse_temperature)
    return tuning.by_platform(make, *given)


def _in_groups(
    read: Callable[..., Any],
    size: int,
    rows: jax.Array,
    reference_logits: jax.Array,
    ids: jax.Array,
    end_logits: jax.Array,
    end: online.Running,
    *given: Any,
) -> tuple[online.Running, Sums, Sums]:
    n_tokens = rows.shape[1]

    def one(first: jax.Array) -> tuple[online.Running, Sums, Sums]:
        def group(x: jax.Array, axis: int = 1) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, first, size, axis)

        by_token = group(rows), group(reference_logits), group(ids, 0), group(end_logits)
        return read(*by_token, jax.tree.map(group, end), *given)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], n_tokens, *x.shape[3:])

    running, cross, between = jax.lax.map(one, jnp.arange(0, n_tokens, size))
    joined = {name: value.reshape(n_tokens) for name, value in between.items()}
    return *jax.tree.map(join, (running, cross)), joined


def _read(
    options: Options,
    rows: jax.Array,
    reference_logits: jax.Array,
    ids: jax.Array,
    end_logits: jax.Array,
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: jax.Array | None,
) -> tuple[online.Running, Sums, Sums]:
    named = list(enumerate(divergences.ENDS))
    reverse = [(i, f"kl_to_{name}") for i, name in named if options.wants(f"kl_to_{name}")]
    symmetric = options.wants(*divergences.SYMMETRIC)

    def body(
        state: tuple[online.Running, Sums, Sums], tile: unembedding.Tile
    ) -> tuple[online.Running, Sums, Sums]:
        running, cross, between = state
        column, weight, bias = tile
        end_z = ends.tile(end_logits, tile, tiles.softcap)
        log_p = end_z - end.log_total[..., None]
        p = jnp.exp(log_p)
        means = [divergences.mean(p[i], end_z[1 - i][None])[0] for i, _ in named]
        new = {f"kl_{name}": means[i] for i, name in named}
        if symmetric:
            new["js"] = divergences.jensen_shannon_terms(log_p[0], log_p[1]).sum(-1)
        between = {name: between[name] + value for name, value in new.items()}
        if not rows.shape[0]:
            return running, cross, between
        z = unembedding.logits(rows, weight, bias, tiles.softcap)
        running, e, decay = online.update(
            running, z, column, reference_logits, ids, inverse_temperature
        )
        sums = {f"kl_{name}": cross[f"kl_{name}"] + divergences.mean(p[i], z) for i, name in named}
        for i, name in reverse:
            sums[name] = cross[name] * decay + (e * end_z[i][None]).sum(-1)
        return running, sums, between

    forward = [f"kl_{name}" for _, name in named]
    none = jnp.zeros(rows.shape[:2], jnp.float32)
    cross = dict.fromkeys(forward + [name for _, name in reverse], none)
    between = dict.fromkeys(forward + ["js"] * symmetric, jnp.zeros(rows.shape[1], jnp.float32))
    is_tempered = inverse_temperature is not None
    start = online.start(
        rows.shape[0], rows.shape[1], reference_logits.shape[-1], options.top_k, is_tempered
    )._replace(n_greater=ranks.start(reference_logits, ids))
    return unembedding.scan(body, (start, cross, between), tiles.stacked)


def jensen_shannon(
    rows: Float[Array, "layer token embed"],
    log_total: Float[Array, "layer token"],
    end_logits: Float[Array, "2 token column"],
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
) -> dict[str, jax.Array]:
    """Jensen-Shannon divergences of the interior layers from both ends."""

    def body(total: jax.Array, tile: unembedding.Tile) -> jax.Array:
        _, weight, bias = tile
        end_z = ends.tile(end_logits, tile, tiles.softcap)
        log_p = unembedding.logits(rows, weight, bias, tiles.softcap) - log_total[..., None]
        log_end = (end_z - end.log_total[..., None])[:, None]
        return total + divergences.jensen_shannon_terms(log_p[None], log_end).sum(-1)

    start = jnp.zeros((2, *rows.shape[:2]), jnp.float32)
    total = unembedding.scan(body, start, tiles.stacked)
    return {f"js_{name}": jnp.maximum(total[i], 0.0) for i, name in enumerate(divergences.ENDS)}
