"""The Pallas TPU kernel of row statistics: logits are multiplied and reduced in VMEM.

The grid is (block of tokens, tile of the vocabulary, layer). The layer is innermost, so that a tile
of the unembedding and of the end layers' logits is fetched once for all layers. Each of a vector's
128 lanes keeps statistics of its own columns (see `lanes`); only after the last tile are they
combined.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from jaxlens.lens.kernels import lanes


@dataclass(frozen=True)
class Shape:
    """Static sizes of a call.

    Attributes:
        tokens: Rows a block, a multiple of 8, of 16 with 16-bit operands.
        tile: Columns a tile, a multiple of `lanes.LANES`.
        top_k: Best columns that are wanted.
        is_tempered: Whether the tempered sum is wanted.
        vmem_bytes: VMEM that the kernel may take.
    """

    tokens: int
    tile: int
    top_k: int
    is_tempered: bool
    vmem_bytes: int


def vmem_bytes_of_row(layers: int, embed: int, itemsize: int, references: int, top_k: int) -> int:
    """VMEM that one token takes through all layers; narrow arrays are padded to `lanes.LANES`."""
    vectors = lanes.n_floats(top_k) + top_k + references  # of lanes, in scratch
    narrow = 1 + 2 * 2  # reference logits once, both results in two buffers
    return layers * (4 * lanes.LANES * (vectors + narrow) + embed * itemsize)


def call(
    rows: Float[Array, "layer token embed"],
    weight: Float[Array, "column embed"],
    biases: Float[Array, "2 column"],
    end_logits: Float[Array, "2 token column"],
    end_log_total: Float[Array, "2 token 1"],
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    inverse_temperature: Float[Array, " layer"],
    shape: Shape,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Statistics of all rows; tokens and columns are multiples of ``shape``'s.

    Args:
        rows: Normalised residuals of the interior layers, as rounded as ``weight``.
        weight: Unembedding, zero in the padding.
        biases: To add to the logits of the rows, and to those of the ends; the padding's logit is
            in them.
        end_logits: Logits of the end layers.
        end_log_total: Their log-sum-exp.
        reference_logits: Logits of the reference tokens.
        ids: Reference tokens.
        inverse_temperature: Of each layer; not read where ``shape`` is not tempered.
        shape: Sizes of a block.
        interpret: Whether to run the kernel's operations one by one, on any backend.

    Returns:
        `lanes.FLOATS` and the logits of the best tokens but the first, ``[layer, token, 5 + k]``;
        the k best tokens and the counts of logits above each reference's,
        ``[layer, token, k + reference]``; the mean under each end of the other end's logits,
        ``[token, 2]``.
    """
    layers, n_tokens, embed = rows.shape
    references = ids.shape[-1]
    n_floats, n_integers = lanes.n_floats(shape.top_k), shape.top_k + references
    of_layers = lambda width, **how: pl.BlockSpec(  # noqa: E731
        (layers, shape.tokens, width), lambda i, j, k: (0, i, 0), **how
    )
    once = pl.Buffered(1)  # fetched when the block of tokens changes, which is rarely
    floats, integers, between = pl.pallas_call(
        functools.partial(_kernel, shape=shape),
        grid=(n_tokens // shape.tokens, weight.shape[0] // shape.tile, layers),
        in_specs=[
            of_layers(embed, pipeline_mode=once),
            pl.BlockSpec((shape.tile, embed), lambda i, j, k: (j, 0)),
            pl.BlockSpec((2, shape.tile), lambda i, j, k: (0, j)),
            pl.BlockSpec((2, shape.tokens, shape.tile), lambda i, j, k: (0, i, j)),
            pl.BlockSpec((2, shape.tokens, 1), lambda i, j, k: (0, i, 0)),
            of_layers(references, pipeline_mode=once),
            pl.BlockSpec((shape.tokens, references), lambda i, j, k: (i, 0)),
            pl.BlockSpec(memory_space=pltpu.SMEM),
        ],
        out_specs=[
            *map(of_layers, (n_floats, n_integers)),
            pl.BlockSpec((shape.tokens, 2), lambda i, j, k: (i, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((layers, n_tokens, n_floats), jnp.float32),
            jax.ShapeDtypeStruct((layers, n_tokens, n_integers), jnp.int32),
            jax.ShapeDtypeStruct((n_tokens, 2), jnp.float32),
        ],
        scratch_shapes=_scratch(layers, references, shape),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=shape.vmem_bytes,
        ),
        cost_estimate=_cost(rows, weight, end_logits, references, shape),
        interpret=interpret,
    )(rows, weight, biases, end_logits, end_log_total, reference_logits, ids, inverse_temperature)
    # The kernel counts in the columns of no reference.
    among = lanes.count_among(reference_logits, ids)
    return floats, integers.at[..., shape.top_k :].add(among), between


def _cost(
    rows: jax.Array, weight: jax.Array, end_logits: jax.Array, references: int, shape: Shape
) -> pl.CostEstimate:
    """Operations, and bytes that the blocks move: the weights once for each block of tokens."""
    layers, n_tokens, _ = rows.shape
    width = lanes.n_floats(shape.top_k) + shape.top_k + references
    results = layers * n_tokens * width + 2 * n_tokens
    given = n_tokens * (2 + references + layers * references)
    once = rows.size * rows.dtype.itemsize + end_logits.size * 4 + 4 * (given + results)
    each = weight.size * weight.dtype.itemsize + 4 * 2 * weight.shape[0]  # and both biases
    logits = layers * n_tokens * weight.shape[0]
    return pl.CostEstimate(
        flops=2 * logits * rows.shape[-1],
        transcendentals=logits * (2 if shape.is_tempered else 1) + end_logits.size,
        bytes_accessed=once + n_tokens // shape.tokens * each,
    )


def _scratch(layers: int, references: int, shape: Shape) -> list[Any]:
    """What outlives a step of the grid.

    Floats and integers of each lane, the ends' moments; and of a tile the ends' distributions and
    the marks of reference tokens.
    """
    in_lanes = (shape.tokens, lanes.LANES)
    return [
        pltpu.VMEM((layers, lanes.n_floats(shape.top_k), *in_lanes), jnp.float32),
        pltpu.VMEM((layers, shape.top_k + references, *in_lanes), jnp.int32),
        pltpu.VMEM((2, *in_lanes), jnp.float32),
        pltpu.VMEM((2, shape.tokens, shape.tile), jnp.float32),
        pltpu.VMEM((shape.tokens, shape.tile), jnp.float32),
    ]


def _kernel(*refs: Any, shape: Shape) -> None:
    """One layer's logits of one tile, for one block of tokens."""
    rows, weight, biases, end_logits, end_log_total, reference_logits, ids, beta = refs[:8]
    floats, integers, between, sums, counts, means, p, marks = refs[8:]
    number, layer = pl.program_id(1), pl.program_id(2)
    mine, results = (sums.at[layer], counts.at[layer]), (floats.at[layer], integers.at[layer])
    first_column = number * shape.tile
    chunks = [slice(i, i + lanes.CHUNK) for i in range(0, shape.tokens, lanes.CHUNK)]

    @pl.when(number == 0)
    def _() -> None:
        lanes.start(*mine, shape.top_k)

    @pl.when(layer == 0)
    def _() -> None:
        _read_ends(number, biases, end_logits, end_log_total, means, p)
        for chunk in chunks:
            lanes.mark_references(marks, ids, chunk, first_column)

    temperature = beta[layer] if shape.is_tempered else None
    z = _multiply(rows[layer], weight[...]) + biases[0:1]
    # Unrolled, so that the compiler may multiply the next rows while it reduces these.
    for chunk in chunks:
        tile = lanes.Tile(z, chunk, first_column)
        greatest = lanes.find_best(*mine, tile, shape.top_k)
        lanes.add_sums(sums.at[layer], p, tile, greatest, temperature)
        lanes.count_greater(counts.at[layer], reference_logits.at[layer], marks, tile)

    @pl.when(number == pl.num_programs(1) - 1)
    def _() -> None:
        lanes.combine_sums(sums.at[layer], floats.at[layer], temperature)
        lanes.combine_best(*mine, *results, shape.top_k)
        lanes.combine_counts(counts.at[layer], integers.at[layer], shape.top_k)
        for i in range(2):
            between[:, i : i + 1] = means[i].sum(-1, keepdims=True)


def _multiply(rows: jax.Array, weight: jax.Array) -> jax.Array:
    is_narrow = rows.dtype == jnp.bfloat16
    return jax.lax.dot_general(
        rows,
        weight,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.DEFAULT if is_narrow else jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _read_ends(
    number: jax.Array, biases: Any, end_logits: Any, end_log_total: Any, means: Any, p: Any
) -> None:
    """Distributions of the ends in this tile, once for all layers, and their own moments."""

    @pl.when(number == 0)
    def _() -> None:
        means[...] = jnp.zeros(means.shape, jnp.float32)

    z = [end_logits[i] + biases[1:2] for i in range(2)]
    for i in range(2):
        p[i] = jnp.exp(z[i] - end_log_total[i])
        terms = p[i] * z[1 - i]
        means[i] += sum(terms[:, group] for group in lanes.groups(terms.shape[-1]))
