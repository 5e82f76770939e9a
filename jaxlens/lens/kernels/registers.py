"""From shared memory into a warpgroup's registers, each value where its multiply has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxlens.lens.kernels import fragments


@dataclass(frozen=True)
class Registers:
    """Loads in the layout of a multiply's result.

    Attributes:
        interpret: Whether JAX's interpreter runs the kernel: it knows no layouts.
    """

    interpret: bool

    def lay_out(self, x: jax.Array) -> jax.Array:
        """A matrix that is computed rather than loaded."""
        return x if self.interpret else plgpu.layout_cast(x, plgpu.Layout.WGMMA)

    def load(self, ref: Any) -> jax.Array:
        """A matrix of 64 rows."""
        return ref[...] if self.interpret else plgpu.load(ref, (), layout=plgpu.Layout.WGMMA)

    def load_row(self, ref: Any, index: Any) -> jax.Array:
        """A value of each of the 64 rows."""
        if self.interpret:
            return ref[index]
        return plgpu.load(ref, index, layout=plgpu.Layout.WGMMA.reduce(1), optimized=False)

    def load_columns(self, ref: Any, index: int) -> jax.Array:
        """A value of each column, in all rows."""
        if self.interpret:
            return self._in_all_rows(ref[index])
        values = plgpu.load(ref, index, layout=plgpu.Layout.WGMMA.reduce(0), optimized=False)
        return self.lay_out(self._in_all_rows(values))

    def _in_all_rows(self, values: jax.Array) -> jax.Array:
        return jax.lax.broadcast_in_dim(values, (fragments.ROWS, *values.shape), (1,))
