"""The Pallas TPU kernel of row statistics: logits are multiplied and reduced in VMEM.

The grid is (block of tokens, tile of the vocabulary, layer). The layer is innermost, so that a tile
of the unembedding and of the end layers' logits is fetched once for all layers. Each of a vector's
128 lanes keeps statistics of its own columns (the online softmax of `online`); only after the last
tile are the lanes combined.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from jaxlens.lens import online

LANES = 128
# Rows that are reduced together: the sublanes of a vector register of 32-bit values.
_CHUNK = 8
_NO_COLUMN = np.int32(2**31 - 1)

FLOATS = ("max_logit", "sum_exp", "sum_exp_logit", "kl_input", "kl_final", "sum_exp_tempered")
"""What the floats of the result are, in order; the last only where there are temperatures."""
_MAX, _SUM, _MOMENT, _INPUT, _FINAL, _TEMPERED = range(len(FLOATS))


@dataclass(frozen=True)
class Shape:
    """Static sizes of a call.

    Attributes:
        tokens: Rows a block, a multiple of 16 (sublanes of 16-bit operands).
        tile: Columns a tile, a multiple of `LANES`.
        is_tempered: Whether the tempered sum is wanted.
        vmem_bytes: VMEM that the kernel may take.
    """

    tokens: int
    tile: int
    is_tempered: bool
    vmem_bytes: int


def vmem_bytes_of_row(layers: int, embed: int, itemsize: int, references: int) -> int:
    """VMEM that one token takes through all layers; narrow arrays are padded to `LANES`."""
    vectors = len(FLOATS) + 1 + references  # of lanes, in scratch
    narrow = 1 + 2 * 2  # reference logits once, both results in two buffers
    return layers * (4 * LANES * (vectors + narrow) + embed * itemsize)


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
        `FLOATS`, ``[layer, token, 6]``; the best token and the counts of logits above each
        reference's, ``[layer, token, 1 + reference]``; the mean under each end of the other end's
        logits, ``[token, 2]``.
    """
    layers, n_tokens, embed = rows.shape
    columns, references = weight.shape[0], ids.shape[-1]
    tokens, tile = shape.tokens, shape.tile
    once = pl.Buffered(1)  # fetched when the block of tokens changes, which is rarely
    result_shapes = [(layers, n_tokens, len(FLOATS)), (layers, n_tokens, 1 + references)]
    return pl.pallas_call(
        functools.partial(_kernel, shape=shape),
        grid=(n_tokens // tokens, columns // tile, layers),
        in_specs=[
            pl.BlockSpec((layers, tokens, embed), lambda i, j, k: (0, i, 0), pipeline_mode=once),
            pl.BlockSpec((tile, embed), lambda i, j, k: (j, 0)),
            pl.BlockSpec((2, tile), lambda i, j, k: (0, j)),
            pl.BlockSpec((2, tokens, tile), lambda i, j, k: (0, i, j)),
            pl.BlockSpec((2, tokens, 1), lambda i, j, k: (0, i, 0)),
            pl.BlockSpec(
                (layers, tokens, references), lambda i, j, k: (0, i, 0), pipeline_mode=once
            ),
            pl.BlockSpec((tokens, references), lambda i, j, k: (i, 0)),
            pl.BlockSpec(memory_space=pltpu.SMEM),
        ],
        out_specs=[
            pl.BlockSpec((layers, tokens, len(FLOATS)), lambda i, j, k: (0, i, 0)),
            pl.BlockSpec((layers, tokens, 1 + references), lambda i, j, k: (0, i, 0)),
            pl.BlockSpec((tokens, 2), lambda i, j, k: (i, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(result_shapes[0], jnp.float32),
            jax.ShapeDtypeStruct(result_shapes[1], jnp.int32),
            jax.ShapeDtypeStruct((n_tokens, 2), jnp.float32),
        ],
        scratch_shapes=[
            pltpu.VMEM((layers, len(FLOATS), tokens, LANES), jnp.float32),
            pltpu.VMEM((layers, 1 + references, tokens, LANES), jnp.int32),
            pltpu.VMEM((2, tokens, LANES), jnp.float32),
            pltpu.VMEM((2, tokens, tile), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=shape.vmem_bytes,
        ),
        interpret=interpret,
    )(rows, weight, biases, end_logits, end_log_total, reference_logits, ids, inverse_temperature)


def _kernel(*refs: Any, shape: Shape) -> None:
    """One layer's logits of one tile, for one block of tokens."""
    rows, weight, biases, end_logits, end_log_total, reference_logits, ids, beta = refs[:8]
    floats, integers, between, sums, counts, means, p = refs[8:]
    number, layer = pl.program_id(1), pl.program_id(2)

    @pl.when(number == 0)
    def _() -> None:
        sums[layer] = jnp.zeros(sums.shape[1:], jnp.float32)
        sums[layer, _MAX] = jnp.full(sums.shape[2:], online.PADDING_LOGIT)
        counts[layer] = jnp.zeros(counts.shape[1:], jnp.int32)

    @pl.when(layer == 0)
    def _() -> None:
        _read_ends(number, biases, end_logits, end_log_total, means, p)

    is_narrow = rows.dtype == jnp.bfloat16
    z = jax.lax.dot_general(
        rows[layer],
        weight[...],
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.DEFAULT if is_narrow else jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    lane = jax.lax.broadcasted_iota(jnp.int32, (_CHUNK, LANES), 1)
    columns = [lane + (number * shape.tile + group.start) for group in _groups(shape.tile)]
    temperature = beta[layer] if shape.is_tempered else None
    # Unrolled, so that the compiler may multiply the next rows while it reduces these.
    for first in range(0, shape.tokens, _CHUNK):
        chunk = slice(first, first + _CHUNK)
        logits = [z[chunk, group] + biases[0:1, group] for group in _groups(shape.tile)]
        greatest = _find_best(sums.at[layer], counts.at[layer], chunk, logits, columns)
        _add_sums(sums.at[layer], p, chunk, logits, greatest, temperature)
        _count_greater(counts.at[layer], reference_logits.at[layer], ids, chunk, logits, columns)

    @pl.when(number == pl.num_programs(1) - 1)
    def _() -> None:
        _combine_sums(sums.at[layer], floats.at[layer], temperature)
        _combine_counts(sums.at[layer], counts.at[layer], integers.at[layer])
        for i in range(2):
            between[:, i : i + 1] = means[i].sum(-1, keepdims=True)


def _groups(tile: int) -> list[slice]:
    """The columns of a tile, as many at a time as a vector has lanes."""
    return [slice(first, first + LANES) for first in range(0, tile, LANES)]


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
        means[i] += sum(terms[:, group] for group in _groups(terms.shape[-1]))


def _find_best(
    sums: Any, counts: Any, chunk: slice, logits: list[jax.Array], columns: list[jax.Array]
) -> jax.Array:
    """Stores each lane's best column so far, the first of equals, and returns its logit."""
    greatest, best = sums[_MAX, chunk], counts[0, chunk]
    for z, column in zip(logits, columns, strict=True):
        best = jnp.where(z > greatest, column, best)
        greatest = jnp.maximum(greatest, z)
    counts[0, chunk] = best
    return greatest


def _add_sums(
    sums: Any,
    p: Any,
    chunk: slice,
    logits: list[jax.Array],
    greatest: jax.Array,
    temperature: jax.Array | None,
) -> None:
    """Adds a tile to the sums of each lane, which become relative to the new greatest logit."""
    old = sums[_MAX, chunk]
    decay = jnp.exp(old - greatest)
    total, moment = sums[_SUM, chunk] * decay, sums[_MOMENT, chunk] * decay
    ends = [sums[_INPUT, chunk], sums[_FINAL, chunk]]
    tempered = sums[_TEMPERED, chunk]
    if temperature is not None:
        tempered = tempered * jnp.exp(temperature * (old - greatest))
    for z, group in zip(logits, _groups(len(logits) * LANES), strict=True):
        e = jnp.exp(z - greatest)
        total, moment = total + e, moment + e * z
        ends = [mean + p[i, chunk, group] * z for i, mean in enumerate(ends)]
        if temperature is not None:
            tempered = tempered + jnp.exp(temperature * (z - greatest))
    for k, value in enumerate((greatest, total, moment, *ends, tempered)):
        sums[k, chunk] = value


def _count_greater(
    counts: Any,
    reference_logits: Any,
    ids: Any,
    chunk: slice,
    logits: list[jax.Array],
    columns: list[jax.Array],
) -> None:
    """Counts logits above each reference's, its own column left out as in `ranks`."""
    for r in range(ids.shape[-1]):
        count = counts[1 + r, chunk]
        least, own = reference_logits[chunk, r : r + 1], ids[chunk, r : r + 1]
        for z, column in zip(logits, columns, strict=True):
            count = count + ((z > least) & (column != own)).astype(jnp.int32)
        counts[1 + r, chunk] = count


def _combine_sums(sums: Any, floats: Any, temperature: jax.Array | None) -> None:
    """Sums of all lanes, relative to the greatest logit of all."""
    greatest = sums[_MAX].max(-1, keepdims=True)
    shift = sums[_MAX] - greatest
    scale = jnp.exp(shift)
    tempered = scale if temperature is None else jnp.exp(temperature * shift)
    floats[:, _MAX : _MAX + 1] = greatest
    for k, factor in ((_SUM, scale), (_MOMENT, scale), (_TEMPERED, tempered)):
        floats[:, k : k + 1] = (sums[k] * factor).sum(-1, keepdims=True)
    for k in (_INPUT, _FINAL):
        floats[:, k : k + 1] = sums[k].sum(-1, keepdims=True)


def _combine_counts(sums: Any, counts: Any, integers: Any) -> None:
    """The first of the best columns of all lanes, and the counts."""
    is_best = sums[_MAX] == sums[_MAX].max(-1, keepdims=True)
    integers[:, 0:1] = jnp.where(is_best, counts[0], _NO_COLUMN).min(-1, keepdims=True)
    for k in range(1, counts.shape[0]):
        integers[:, k : k + 1] = counts[k].sum(-1, keepdims=True)
