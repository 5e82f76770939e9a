"""The interior layers on a TPU: one Pallas kernel in place of `interior.read`.

Experimental: it compiles for TPU v5e and v6e and agrees with float64 in interpret mode, but no TPU
has run it. `pallas` is the lens that reads with it. It moves the end layers' logits and the
unembedding once a block of tokens; the logits of the interior layers never leave VMEM.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlens.lens import divergences, interior, online, unembedding
from jaxlens.lens.kernels import lanes, operands, row_statistics
from jaxlens.lens.options import Options

# Columns a tile at most, and bytes of its weights, of which there are two buffers.
MAX_TILE = 1024
TILE_BYTES = 4 * 2**20
# Of the 128 MiB of VMEM that TPUs v5e and v6e have; the rest is the compiler's own.
VMEM_BYTES = 100 * 2**20
# What all layers of a block of tokens may take of it, beside the tiles.
ROWS_BYTES = 80 * 2**20
# Bytes of a lane in a vector register: 8 rows of float32, 16 of bfloat16.
_BYTES_OF_LANE = 32
# Each reference is a count in VMEM for every token, layer and lane.
MAX_REFERENCES = 16
# Each is compared with every logit, where a lane keeps it.
MAX_TOP_K = 16

_PRECISIONS = ("float32", "bfloat16")


def read(
    rows: Float[Array, "layer token embed"],
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    end_logits: Float[Array, "2 token column"],
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, " layer"] | None,
    options: Options,
) -> tuple[online.Running, divergences.Sums, divergences.Sums]:
    """The interior layers; takes and returns what `interior.read` does.

    The kernel is compiled on a TPU and interpreted, slowly, on a CPU. `interior.read` does what
    the kernel does not (see `is_supported`), and all on a GPU.
    """
    given = rows, reference_logits, ids, end_logits, end, tiles, inverse_temperature
    if not is_supported(rows, ids.shape[-1], options):
        return interior.read(*given, options)
    return jax.lax.platform_dependent(
        cpu=lambda: _fused(*given, options.top_k, interpret=True),
        tpu=lambda: _fused(*given, options.top_k, interpret=False),
        default=lambda: interior.read(*given, options),
    )


def is_available() -> bool:
    """Whether the devices at hand run the kernel: any TPU does."""
    return True


def is_supported(
    rows: Float[Array, "layer token embed"] | jax.ShapeDtypeStruct,
    references: int,
    options: Options,
) -> bool:
    """Whether the kernel reads these rows, with so many references.

    It does not where there are no interior layers, for Jensen-Shannon and reverse divergences,
    for many best tokens or references, for precisions that split operands, and where all layers of
    the smallest block do not fit VMEM.
    """
    return (
        rows.shape[0] > 0
        and references <= MAX_REFERENCES
        and options.top_k <= MAX_TOP_K
        and operands.is_one_pass(options)
        and options.precision in _PRECISIONS
        and _multiple(rows) * _bytes_of_row(rows, references, options.top_k) <= ROWS_BYTES
    )


def _multiple(rows: jax.Array | jax.ShapeDtypeStruct) -> int:
    """What the tokens of a block are a multiple of."""
    return _BYTES_OF_LANE // rows.dtype.itemsize


def _bytes_of_row(rows: jax.Array | jax.ShapeDtypeStruct, references: int, top_k: int) -> int:
    layers, _, embed = rows.shape
    return row_statistics.vmem_bytes_of_row(layers, embed, rows.dtype.itemsize, references, top_k)


def _fused(
    rows: jax.Array,
    reference_logits: jax.Array,
    ids: jax.Array,
    end_logits: jax.Array,
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: jax.Array | None,
    top_k: int,
    interpret: bool,
) -> tuple[online.Running, divergences.Sums, divergences.Sums]:
    layers, n_tokens, embed = rows.shape
    columns = end_logits.shape[-1]
    shape = row_statistics.Shape(
        tokens=_choose_tokens(rows, ids.shape[-1], top_k),
        tile=_choose_tile(columns, embed * rows.dtype.itemsize),
        top_k=top_k,
        is_tempered=inverse_temperature is not None,
        vmem_bytes=VMEM_BYTES,
    )
    more_tokens, more_columns = -n_tokens % shape.tokens, -columns % shape.tile
    if inverse_temperature is None:
        inverse_temperature = jnp.ones(layers, jnp.float32)
    results = row_statistics.call(
        operands.pad(rows, (1, more_tokens)),
        operands.pad(tiles.weight.reshape(-1, embed), (0, more_columns)),
        operands.biases(tiles, columns, more_columns),
        operands.pad(end_logits, (1, more_tokens), (2, more_columns)),
        operands.pad(end.log_total[..., None], (1, more_tokens)),
        operands.pad(reference_logits, (1, more_tokens)),
        operands.pad(ids, (0, more_tokens)),
        inverse_temperature,
        shape=shape,
        interpret=interpret,
    )
    return _unpack(*results, n_tokens, shape)


def _choose_tokens(rows: jax.Array | jax.ShapeDtypeStruct, references: int, top_k: int) -> int:
    """Tokens a block of the kernel: as many as fit VMEM, if possible without padding the last."""
    n_tokens, multiple = rows.shape[1], _multiple(rows)
    most = ROWS_BYTES // _bytes_of_row(rows, references, top_k) // multiple * multiple
    fewest = -(-n_tokens // most)
    for n_blocks in range(fewest, 2 * fewest):
        if n_tokens % (n_blocks * multiple) == 0:
            return n_tokens // n_blocks
    return -(-n_tokens // (fewest * multiple)) * multiple


def _choose_tile(columns: int, bytes_of_column: int) -> int:
    """Columns a tile of the kernel: the most that divide the columns, which are then not copied."""
    width = lanes.LANES
    fitting = max(width, TILE_BYTES // bytes_of_column // width * width)
    widest = min(MAX_TILE, fitting, -(-columns // width) * width)
    dividing = [tile for tile in range(width, widest + 1, width) if columns % tile == 0]
    return dividing[-1] if dividing else widest


def _unpack(
    floats: jax.Array,
    integers: jax.Array,
    between: jax.Array,
    n_tokens: int,
    shape: row_statistics.Shape,
) -> tuple[online.Running, divergences.Sums, divergences.Sums]:
    floats, integers = floats[:, :n_tokens], integers[:, :n_tokens]
    value = {name: floats[..., i] for i, name in enumerate(lanes.FLOATS)}
    others = floats[..., len(lanes.FLOATS) :]  # the best tokens but the first
    running = online.Running(
        max_logit=value["max_logit"],
        sum_exp=value["sum_exp"],
        sum_exp_logit=value["sum_exp_logit"],
        n_greater=integers[..., shape.top_k :],
        top=jnp.concatenate([value["max_logit"][..., None], others], -1),
        top_id=integers[..., : shape.top_k],
        sum_exp_tempered=value["sum_exp_tempered"] if shape.is_tempered else None,
    )
    forward = [f"kl_{name}" for name in divergences.ENDS]
    cross = {name: value[name] for name in forward}
    return running, cross, {name: between[:n_tokens, i] for i, name in enumerate(forward)}
