"""The vocabulary in parts, one a device: what devices that share a model tell each other.

Each device holds some tiles of the unembedding and reads them as if they were the whole vocabulary,
its columns numbered from 0. What it finds is merged with what the others find once a block of
tokens, never within a loop over tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxlens.lens import mesh, online, slicing, top_k, unembedding

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The columns of the vocabulary that a device reads.

    Attributes:
        count: Parts that there are.
        first: Column where this one begins.
        columns: Its columns, padding too.
    """

    count: int
    first: jax.Array | int
    columns: int

    def within(self, ids: Int[Array, "*token reference"]) -> Int[Array, "*token reference"]:
        """Tokens as columns of this part; -1 where another part has them."""
        if self.count == 1:
            return ids
        own = ids - self.first
        return jnp.where((own >= 0) & (own < self.columns), own, -1)

    def sum(self, tree: T) -> T:
        """Sums over all parts."""
        return tree if self.count == 1 else jax.lax.psum(tree, mesh.AXIS)

    def reference_logits(
        self,
        normed: Float[Array, "layer token embed"],
        ids: Int[Array, "token reference"],
        tiles: unembedding.TiledUnembedding,
    ) -> Float[Array, "layer token reference"]:
        """Logits of chosen tokens, from the same rounded operands as the tiles."""
        if self.count == 1:
            return _gathered(normed, ids, tiles)
        own = self.within(ids)
        logits = _gathered(normed, jnp.maximum(own, 0), tiles)
        return self.sum(jnp.where((own >= 0)[None], logits, 0.0))

    def merge(
        self,
        running: online.Running,
        inverse_temperature: Float[Array, " layer"] | None,
        cross: dict[str, jax.Array] | None = None,
    ) -> tuple[online.Running, dict[str, jax.Array]]:
        """The state of all columns, best tokens as ids, from those of each part.

        Args:
            running: After the tiles of this part.
            inverse_temperature: Where ``running.sum_exp_tempered`` is kept.
            cross: Of `interior.read`: ``kl_to_E`` are relative to ``max_logit``.

        Returns:
            The state, and the sums of ``cross``.
        """
        cross = cross or {}
        if self.count == 1:
            return running, cross
        greatest = jax.lax.pmax(running.max_logit, mesh.AXIS)
        below = running.max_logit - greatest
        relative = {name: value for name, value in cross.items() if name.startswith("kl_to_")}
        relative |= {"exp": running.sum_exp, "exp_logit": running.sum_exp_logit}
        sums = cross | {name: value * jnp.exp(below) for name, value in relative.items()}
        if inverse_temperature is not None and running.sum_exp_tempered is not None:
            decay = jnp.exp(inverse_temperature[:, None] * below)
            sums["tempered"] = running.sum_exp_tempered * decay
        sums = self.sum(sums)
        top, top_id = self._best(running)
        merged = online.Running(
            max_logit=greatest,
            sum_exp=sums["exp"],
            sum_exp_logit=sums["exp_logit"],
            n_greater=self.sum(running.n_greater),
            top=top,
            top_id=top_id,
            sum_exp_tempered=sums.get("tempered"),
        )
        return merged, {name: sums[name] for name in cross}

    def _best(self, running: online.Running) -> tuple[jax.Array, jax.Array]:
        """The best tokens; of equals the lowest id, since parts are in the order of their ids."""
        axis = running.top.ndim - 1
        top = jax.lax.all_gather(running.top, mesh.AXIS, axis=axis, tiled=True)
        ids = jax.lax.all_gather(running.top_id + self.first, mesh.AXIS, axis=axis, tiled=True)
        best, places = top_k.find(top, running.top.shape[-1])
        return best, jnp.take_along_axis(ids, places, -1)


def read(
    function: Callable[..., T], tiles: unembedding.TiledUnembedding, *replicated: jax.Array | None
) -> T:
    """Calls ``function(part, tiles, *replicated)`` on each device, with its own tiles.

    Args:
        function: Returns the same on each of them.
        tiles: The whole vocabulary.
        replicated: What each device has all of.
    """
    n_tiles, width, _ = tiles.weight.shape
    columns = n_tiles * width // tiles.parts
    if tiles.parts == 1:
        return function(Part(1, 0, columns), tiles, *replicated)

    def one(tiles: unembedding.TiledUnembedding, *replicated: jax.Array | None) -> T:
        first = jax.lax.axis_index(mesh.AXIS) * columns
        return function(Part(tiles.parts, first, columns), tiles, *replicated)

    whole = PartitionSpec()
    return jax.shard_map(
        one,
        mesh=mesh.over(tiles.parts),
        in_specs=(PartitionSpec(mesh.AXIS), *(whole for _ in replicated)),
        out_specs=whole,
        check_vma=False,
    )(tiles, *replicated)


def _gathered(
    normed: Float[Array, "layer token embed"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
) -> Float[Array, "layer token reference"]:
    weight = slicing.rows(tiles.weight.reshape(-1, normed.shape[-1]), ids)
    product = jnp.einsum("lte,tre->ltr", normed, weight, preferred_element_type=jnp.float32)
    bias = tiles.flat_bias
    product = product if bias is None else product + bias[ids][None]
    return product if tiles.softcap is None else unembedding.capped(product, tiles.softcap)
