"""Patches of the residual stream: what an ablation replaces, at which layer and positions.

A patch is a pure function ``patch(layer, stream)`` that ``models.residuals`` applies to every
stream, from the embedding to the output of the last block, before the stream is recorded and handed
on. It runs inside the scan over the blocks, so ``layer`` is a traced integer and the function must
leave other layers as they are. It is a pytree as well, so that one compiled program serves all
layers, positions and directions: `Replace`, or ``jax.tree_util.Partial`` of any function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Patch = Callable[[Any, Any], Any]
"""``patch(layer, stream)``: the stream ``[batch, position, embed]`` that takes its place."""


class Replace(NamedTuple):
    """Replaces the stream, or a part of it, by its mean at some positions of one layer.

    Attributes:
        layer: Number of the stream, 0 for the embedding, traced or a Python integer.
        mask: Positions where it is replaced.
        mean: What takes its place; zeros remove the part altogether.
        basis: Orthonormal rows that span the part to replace, of each position; rows of zeros span
            nothing. The whole stream without it.
        complement: Whether everything but that span is replaced instead; with rows of zeros alone,
            the whole stream. Traced or a Python boolean; False without a basis.
        shift: Unit direction along which the stream is moved instead, by the length of the part;
            zeros replace the part.
    """

    layer: Int[Array, ""] | int
    mask: Bool[Array, "batch position"]
    mean: Float[Array, " embed"]
    basis: Float[Array, "batch position direction embed"] | None = None
    complement: Bool[Array, ""] | bool = False
    shift: Float[Array, "batch position embed"] | None = None

    def __call__(
        self, layer: Int[Array, ""], stream: Float[Array, "batch position embed"]
    ) -> Float[Array, "batch position embed"]:
        """The patched stream; unchanged at other layers and positions."""
        part = stream - jnp.asarray(self.mean)[None, None]
        if self.basis is not None:
            # At full precision: a rounded projection would leave a trace of what is removed.
            along = jnp.einsum(
                "bpde,bpe->bpd", self.basis, part, precision=jax.lax.Precision.HIGHEST
            )
            inside = jnp.einsum(
                "bpd,bpde->bpe", along, self.basis, precision=jax.lax.Precision.HIGHEST
            )
            part = jnp.where(self.complement, part - inside, inside)
        if self.shift is not None:
            length = jnp.sqrt(jnp.square(part).sum(-1, keepdims=True))
            moved = (self.shift != 0).any(-1, keepdims=True)
            part = jnp.where(moved, -length * self.shift, part)
        here = self.mask & (layer == self.layer)
        return jnp.where(here[..., None], stream - part, stream)
