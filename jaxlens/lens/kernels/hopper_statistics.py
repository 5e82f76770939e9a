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

from jaxlens.lens.kernels import fragments, hopper_sizes, warpgroups

# Registers of a thread after the copying warpgroup gave up its own: of 64 Ki, for so many
# warpgroups that multiply.
_REGISTERS = {2: 240, 3: 160}
_REGISTERS_TO_COPY = 24


def call(
    inputs: dict[str, jax.Array], shape: hopper_sizes.Shape, interpret: Any = None
) -> tuple[jax.Array, ...]:
    """Statistics of all rows in each split of the vocabulary.

    Args:
        inputs: ``rows``, normalised residuals in bfloat16, ``[layer, token, embed]``, of the
            interior layers or of the ends; ``weight``, the unembedding in bfloat16,
            ``[column, embed]``, zero in the padding; ``biases``, ``[2, column]``, to add to the
            logits of the rows, and to those of the ends, with the padding's logit;
            ``reference_logits``, ``[layer, reference, token]``; ``ids``, ``[reference, token]``;
            ``inverse_temperature``, ``[layer]``, not read where ``shape`` is not tempered;
            of interior layers also ``end_logits``, ``[2, token, column]``, and their log-sum-exp
            ``end_log_total``, ``[2, token]``. Tokens are a multiple of 64, ``embed`` of
            `hopper_sizes.DEPTH`, columns of ``shape.tile``.
        shape: Sizes of a block.
        interpret: Parameters of JAX's interpreter of GPU kernels; None compiles for a GPU.

    Returns:
        ``shape.floats``, ``[split, float, layer, token]``; the best columns and the counts of
        logits above each reference's, ``[split, k + reference, layer, token]``; of ends their
        logits without the bias, ``[layer, token, column]``.
    """
    n_layers, n_tokens, _ = inputs["rows"].shape
    if interpret is not None:
        # The interpreter does not multiply with what is transposed in a buffer.
        inputs = inputs | {"weight": inputs["weight"].T}
    of_rows = n_layers, n_tokens
    out = [
        jax.ShapeDtypeStruct((shape.splits, len(shape.floats), *of_rows), jnp.float32),
        jax.ShapeDtypeStruct((shape.splits, shape.top_k + len(inputs["ids"]), *of_rows), jnp.int32),
    ]
    if shape.is_of_ends:
        out.append(jax.ShapeDtypeStruct((*of_rows, inputs["biases"].shape[1]), jnp.float32))
    kernel = plgpu.kernel(
        functools.partial(_kernel, shape=shape, interpret=interpret is not None),
        out_type=tuple(out),
        grid=(shape.splits, -(-n_layers // shape.layers), n_tokens // fragments.ROWS),
        grid_names=("split", "group", "block"),
        num_threads=shape.layers + 1,
        thread_name="warpgroup",
        # Exponentials by the special function unit, to some 2e-7 of themselves.
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpret,
    )
    return kernel(*(inputs[name] for name in shape.inputs))


def _buffers(shape: hopper_sizes.Shape, references: int, interpret: bool) -> dict[str, Any]:
    """Shared memory of a block of threads, by what it holds."""
    depth, n_rows = hopper_sizes.DEPTH, fragments.ROWS
    wide = (plgpu.TilingTransform((8, depth)), plgpu.SwizzleTransform(128))
    of_ends = (plgpu.TilingTransform((8, hopper_sizes.ENDS_WIDTH)), plgpu.SwizzleTransform(128))
    rows = (shape.stages, shape.layers, n_rows, depth)
    tile = (depth, shape.tile) if interpret else (shape.tile, depth)
    return {
        "rows": plgpu.SMEM(rows, jnp.bfloat16, transforms=wide),
        "weight": plgpu.SMEM((shape.stages, *tile), jnp.bfloat16, transforms=wide),
        "end_logits": plgpu.SMEM((2, n_rows, shape.tile), jnp.float32, transforms=of_ends),
        "biases": plgpu.SMEM((2, shape.tile), jnp.float32),
        "end_log_total": plgpu.SMEM((2, n_rows), jnp.float32),
        "reference_logits": plgpu.SMEM((shape.layers, references, n_rows), jnp.float32),
        "ids": plgpu.SMEM((references, n_rows), jnp.int32),
        "floats": plgpu.SMEM((shape.layers, len(shape.floats), n_rows), jnp.float32),
        "integers": plgpu.SMEM((shape.layers, shape.top_k + references, n_rows), jnp.int32),
    }


def _barriers(shape: hopper_sizes.Shape) -> dict[str, Any]:
    """What warpgroups wait for: that copies have come, and that all have read a buffer."""
    n_ends = 0 if shape.is_of_ends else 1
    return {
        "rows_came": plgpu.Barrier(num_arrivals=2 + n_ends),
        "came": plgpu.Barrier(num_arrivals=2, num_barriers=shape.stages),
        "read": plgpu.Barrier(num_arrivals=shape.layers, num_barriers=shape.stages),
        "ends_came": plgpu.Barrier(num_arrivals=1 + n_ends),
        "ends_read": plgpu.Barrier(num_arrivals=shape.layers),
    }


def _kernel(*refs: Any, shape: hopper_sizes.Shape, interpret: bool) -> None:
    """What one block of threads does."""
    references = refs[shape.inputs.index("ids")].shape[0]
    buffers, barriers = _buffers(shape, references, interpret), _barriers(shape)

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
