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
        return self._cast(x, plgpu.Layout.WGMMA)

    def load(self, ref: Any) -> jax.Array:
        """A matrix of 64 rows."""
        return self.lay_out(ref[...])

    def load_row(self, ref: Any, index: Any) -> jax.Array:
        """A value of each of the 64 rows."""
        return self._cast(ref[index], plgpu.Layout.WGMMA.reduce(1))

    def load_columns(self, ref: Any, index: int) -> jax.Array:
        """A value of each column, in all rows."""
        values = self._cast(ref[index], plgpu.Layout.WGMMA.reduce(0))
        shape = fragments.ROWS, *values.shape
        return self.lay_out(jax.lax.broadcast_in_dim(values, shape, (1,)))

    def _cast(self, x: jax.Array, layout: Any) -> jax.Array:
        return x if self.interpret else plgpu.layout_cast(x, layout)
