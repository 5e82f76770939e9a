"""The Pallas kernel of row statistics for NVIDIA Hopper: logits never leave the registers.

The grid is (split of the vocabulary, group of layers, 64 tokens). A block of threads has one
warpgroup a layer of the group and one more that copies for them, see `warpgroups`. Statistics of
the splits are merged by `hopper`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from jaxlens.lens.kernels import fragments, warpgroups

# Registers of a thread after the copying warpgroup gave up its own: of 64 Ki, for so many
# warpgroups that multiply.
_REGISTERS = {2: 240, 3: 160}
_REGISTERS_TO_COPY = 24


def call(
    rows: Float[Array, "layer token embed"],
    weight: Float[Array, "column embed"],
    biases: Float[Array, "2 column"],
    end_logits: Float[Array, "2 token column"],
    end_log_total: Float[Array, "2 token"],
    reference_logits: Float[Array, "layer reference token"],
    ids: Int[Array, "reference token"],
    inverse_temperature: Float[Array, " layer"],
    shape: warpgroups.Shape,
    interpret: Any = None,
) -> tuple[Float[Array, "split float layer token"], Int[Array, "split integer layer token"]]:
    """Statistics of all rows in each split of the vocabulary.

    Tokens are a multiple of 64, elements of a row of `warpgroups.DEPTH`, columns of
    ``shape.tile``.

    Args:
        rows: Normalised residuals of the interior layers, bfloat16.
        weight: Unembedding, bfloat16, zero in the padding.
        biases: To add to the logits of the rows, and to those of the ends; the padding's logit is
            in them.
        end_logits: Logits of the end layers.
        end_log_total: Their log-sum-exp.
        reference_logits: Logits of the reference tokens.
        ids: Reference tokens.
        inverse_temperature: Of each layer; not read where ``shape`` is not tempered.
        shape: Sizes of a block.
        interpret: Parameters of JAX's interpreter of GPU kernels; None compiles for a GPU.

    Returns:
        ``shape.floats``; the best token and the counts of logits above each reference's.
    """
    n_layers, n_tokens, _ = rows.shape
    references = ids.shape[0]
    if interpret is not None:
        weight = weight.T  # the interpreter does not multiply with what is transposed in a buffer
    kernel = plgpu.kernel(
        functools.partial(_kernel, shape=shape, interpret=interpret is not None),
        out_type=(
            jax.ShapeDtypeStruct(
                (shape.splits, len(shape.floats), n_layers, n_tokens), jnp.float32
            ),
            jax.ShapeDtypeStruct((shape.splits, 1 + references, n_layers, n_tokens), jnp.int32),
        ),
        grid=(shape.splits, -(-n_layers // shape.layers), n_tokens // fragments.ROWS),
        grid_names=("split", "group", "block"),
        num_threads=shape.layers + 1,
        thread_name="warpgroup",
        # Exponentials by the special function unit, to some 2e-7 of themselves.
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpret,
    )
    ends = end_logits, end_log_total
    return kernel(rows, weight, biases, *ends, reference_logits, ids, inverse_temperature)


def _kernel(*refs: Any, shape: warpgroups.Shape, interpret: bool) -> None:
    """What one block of threads does."""
    references = refs[6].shape[0]
    wide = (plgpu.TilingTransform((8, warpgroups.DEPTH)), plgpu.SwizzleTransform(128))
    of_ends = (plgpu.TilingTransform((8, warpgroups.ENDS_WIDTH)), plgpu.SwizzleTransform(128))
    tile_shape = (warpgroups.DEPTH, shape.tile) if interpret else (shape.tile, warpgroups.DEPTH)
    buffers = {
        "rows": plgpu.SMEM(
            (shape.stages, shape.layers, fragments.ROWS, warpgroups.DEPTH),
            jnp.bfloat16,
            transforms=wide,
        ),
        "weight": plgpu.SMEM((shape.stages, *tile_shape), jnp.bfloat16, transforms=wide),
        "end_logits": plgpu.SMEM((2, fragments.ROWS, shape.tile), jnp.float32, transforms=of_ends),
        "biases": plgpu.SMEM((2, shape.tile), jnp.float32),
        "end_log_total": plgpu.SMEM((2, fragments.ROWS), jnp.float32),
        "reference_logits": plgpu.SMEM((shape.layers, references, fragments.ROWS), jnp.float32),
        "ids": plgpu.SMEM((references, fragments.ROWS), jnp.int32),
        "floats": plgpu.SMEM((shape.layers, len(shape.floats), fragments.ROWS), jnp.float32),
        "integers": plgpu.SMEM((shape.layers, 1 + references, fragments.ROWS), jnp.int32),
    }
    barriers = {
        "rows_came": plgpu.Barrier(num_arrivals=3),
        "came": plgpu.Barrier(num_arrivals=2, num_barriers=shape.stages),
        "read": plgpu.Barrier(num_arrivals=shape.layers, num_barriers=shape.stages),
        "ends_came": plgpu.Barrier(num_arrivals=2),
        "ends_read": plgpu.Barrier(num_arrivals=shape.layers),
    }

    def with_buffers(buffers: dict[str, Any], barriers: dict[str, Any]) -> None:
        block = warpgroups.Block(refs, buffers, barriers, shape, interpret)
        warpgroup = jax.lax.axis_index("warpgroup")

        @pl.when(warpgroup < shape.layers)
        def _() -> None:
            if shape.layers in _REGISTERS:
                plgpu.set_max_registers(_REGISTERS[shape.layers], action="increase")
            block.reduce(warpgroup)

        @pl.when(warpgroup == shape.layers)
        def _() -> None:
            if shape.layers in _REGISTERS:
                plgpu.set_max_registers(_REGISTERS_TO_COPY, action="decrease")
            block.copy()

    pl.run_scoped(with_buffers, buffers, barriers, collective_axes="warpgroup")
