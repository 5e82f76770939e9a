"""The lens on an NVIDIA Hopper: a Pallas kernel in place of `interior.read` and `ends.read`.

Experimental: it compiles to machine code for an H100 and agrees with XLA in JAX's interpreter of
GPU kernels, but no GPU has run it. The ``pallas`` lens uses it, which no run on a GPU chooses by
itself. Its blocks of threads read the unembedding, and of interior layers the ends' logits,
once a block of tokens from device memory, as long as they keep step: the logits of interior layers
never leave registers, and those of the ends are written while they are reduced.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlens.lens import divergences, ends, interior, online, unembedding
from jaxlens.lens import top_k as best_of_rows
from jaxlens.lens.kernels import fragments, hopper_sizes, hopper_statistics, operands
from jaxlens.lens.options import Options

# Columns a tile: 64 registers a thread of its logits, beside the statistics.
TILE = 128
# Layers a block of threads, which share the tile and the ends' logits: 192 rows a tile.
LAYERS = 3
# Slices of rows and tile in shared memory, 40 KB each of 227 beside the ends' 64.
STAGES = 3
# Multiprocessors of an H100 or H200 SXM, each of which one block of threads fills.
MULTIPROCESSORS = 132
# Each reference takes 4 registers a thread, each best token 8. With more than one best token two
# layers a block leave them enough.
MAX_REFERENCES = 8
MAX_TOP_K = 8
LAYERS_OF_SEVERAL = 2


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

    `interior.read` does what the kernel does not (see `is_supported`), and all where the program is
    not compiled for an NVIDIA GPU.
    """
    given = rows, reference_logits, ids, end_logits, end, tiles, inverse_temperature
    if not is_supported(rows, ids.shape[-1], options):
        return interior.read(*given, options)
    return jax.lax.platform_dependent(
        cuda=lambda: fused(*given, top_k=options.top_k),
        default=lambda: interior.read(*given, options),
    )


def read_ends(
    rows: Float[Array, "2 token embed"],
    reference_logits: Float[Array, "2 token reference"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, "2"] | None,
    options: Options,
) -> tuple[online.Running, Float[Array, "2 token column"]]:
    """The end layers; takes and returns what `ends.read` does, which reads what `read` leaves."""
    given = rows, reference_logits, ids, tiles, inverse_temperature
    if not is_supported(rows, ids.shape[-1], options):
        return ends.read(*given, options)
    return jax.lax.platform_dependent(
        cuda=lambda: fused_ends(*given, top_k=options.top_k),
        default=lambda: ends.read(*given, options),
    )


def is_supported(
    rows: Float[Array, "layer token embed"] | jax.ShapeDtypeStruct,
    references: int,
    options: Options,
) -> bool:
    """Whether the kernel reads these rows, with so many references.

    It does not where there are no interior layers, for Jensen-Shannon and reverse divergences,
    for many best tokens, for operands other than bfloat16, for many references, and where it is not
    available.
    """
    return (
        rows.shape[0] > 0
        and 0 < references <= MAX_REFERENCES
        and operands.is_one_pass(options)
        and 1 <= options.top_k <= MAX_TOP_K
        and options.precision == "bfloat16"
        and is_available()
    )


def is_available() -> bool:
    """Whether the GPU at hand, if there is one, has the kernel's instructions."""
    if jax.default_backend() != "gpu":
        return True
    return getattr(jax.devices()[0], "compute_capability", None) == "9.0"


def fused(
    rows: Float[Array, "layer token embed"],
    reference_logits: Float[Array, "layer token reference"],
    ids: Int[Array, "token reference"],
    end_logits: Float[Array, "2 token column"],
    end: online.Running,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, " layer"] | None,
    top_k: int = 1,
    interpret: Any = None,
) -> tuple[online.Running, divergences.Sums, divergences.Sums]:
    """What `read` does with the kernel, or with its interpreter."""
    shape = _shape(rows, tiles, inverse_temperature is not None, top_k)
    inputs = _inputs(rows, reference_logits, ids, tiles, inverse_temperature)
    more_tokens = -rows.shape[1] % fragments.ROWS
    inputs["end_logits"] = operands.pad(end_logits, (1, more_tokens), (2, -_columns(tiles) % TILE))
    inputs["end_log_total"] = operands.pad(end.log_total, (1, more_tokens))
    floats, integers = hopper_statistics.call(inputs, shape, interpret)
    running, values = _merge(shape, floats, integers, rows.shape[1], inverse_temperature)
    cross = {f"kl_{name}": values[f"kl_{name}"].sum(0) for name in divergences.ENDS}
    # The same in every layer: the moments of the ends do not depend on it.
    between = {f"kl_{name}": values[f"between_{name}"][:, 0].sum(0) for name in divergences.ENDS}
    return running, cross, between


def fused_ends(
    rows: Float[Array, "2 token embed"],
    reference_logits: Float[Array, "2 token reference"],
    ids: Int[Array, "token reference"],
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: Float[Array, "2"] | None,
    top_k: int = 1,
    interpret: Any = None,
) -> tuple[online.Running, Float[Array, "2 token column"]]:
    """What `read_ends` does with the kernel, or with its interpreter; logits without the bias."""
    shape = _shape(rows, tiles, inverse_temperature is not None, top_k, is_of_ends=True)
    inputs = _inputs(rows, reference_logits, ids, tiles, inverse_temperature)
    floats, integers, logits = hopper_statistics.call(inputs, shape, interpret)
    running, _ = _merge(shape, floats, integers, rows.shape[1], inverse_temperature)
    return running, logits[:, : rows.shape[1], : _columns(tiles)]


def _columns(tiles: unembedding.TiledUnembedding) -> int:
    return tiles.weight.shape[0] * tiles.weight.shape[1]


def _shape(
    rows: jax.Array,
    tiles: unembedding.TiledUnembedding,
    is_tempered: bool,
    top_k: int,
    is_of_ends: bool = False,
) -> hopper_sizes.Shape:
    """Sizes of a block; splits of the vocabulary are so many that blocks fill the chip, once."""
    n_layers, n_tokens, _ = rows.shape
    layers = min(LAYERS if top_k == 1 else LAYERS_OF_SEVERAL, n_layers)
    return hopper_sizes.Shape(
        layers=layers,
        tile=TILE,
        splits=_choose_splits(n_layers, n_tokens, -(-_columns(tiles) // TILE), layers),
        stages=STAGES,
        is_tempered=is_tempered,
        is_of_ends=is_of_ends,
        top_k=top_k,
    )


def _inputs(
    rows: jax.Array,
    reference_logits: jax.Array,
    ids: jax.Array,
    tiles: unembedding.TiledUnembedding,
    inverse_temperature: jax.Array | None,
) -> dict[str, jax.Array]:
    """What the kernel reads of any layers, padded to whole tiles."""
    n_layers, n_tokens, embed = rows.shape
    columns = _columns(tiles)
    more_tokens, more_columns = -n_tokens % fragments.ROWS, -columns % TILE
    more_embed = -embed % hopper_sizes.DEPTH
    if inverse_temperature is None:
        inverse_temperature = jnp.ones(n_layers, jnp.float32)
    return {
        "rows": operands.pad(rows, (1, more_tokens), (2, more_embed)),
        "weight": operands.pad(tiles.weight.reshape(-1, embed), (0, more_columns), (1, more_embed)),
        "biases": operands.biases(tiles, columns, more_columns),
        "reference_logits": operands.pad(jnp.swapaxes(reference_logits, 1, 2), (2, more_tokens)),
        "ids": operands.pad(ids.T, (1, more_tokens)),
        "inverse_temperature": inverse_temperature,
    }


def _choose_splits(n_layers: int, n_tokens: int, n_tiles: int, layers: int) -> int:
    groups = -(-n_layers // layers)
    blocks = groups * -(-n_tokens // fragments.ROWS)
    return max(1, min(n_tiles, MULTIPROCESSORS // blocks))


def _merge(
    shape: hopper_sizes.Shape,
    floats: Float[Array, "split float layer padded_token"],
    integers: Int[Array, "split integer layer padded_token"],
    n_tokens: int,
    inverse_temperature: Float[Array, " layer"] | None,
) -> tuple[online.Running, dict[str, Float[Array, "split layer token"]]]:
    """The state after the whole vocabulary, and the floats of its splits by name."""
    values = dict(zip(shape.floats, jnp.moveaxis(floats[..., :n_tokens], 1, 0), strict=True))
    integers = jnp.moveaxis(integers[..., :n_tokens], 1, 0)
    # Of all splits, whose columns are different.
    best = jnp.stack([values[name] for name in fragments.best_logits(shape.top_k)], -1)
    columns = jnp.moveaxis(integers[: shape.top_k], 0, -1)
    flat = (*best.shape[1:3], shape.splits * shape.top_k)
    best, columns = (jnp.moveaxis(x, 0, 2).reshape(flat) for x in (best, columns))
    top, top_id = best_of_rows.take(best, columns, shape.top_k)
    greatest = top[..., 0]
    shift = values["max_logit"] - greatest[None]
    scale = jnp.exp(shift)
    tempered = None
    if inverse_temperature is not None:
        scale_tempered = jnp.exp(inverse_temperature[None, :, None] * shift)
        tempered = (values[fragments.TEMPERED] * scale_tempered).sum(0)
    running = online.Running(
        max_logit=greatest,
        sum_exp=(values["sum_exp"] * scale).sum(0),
        sum_exp_logit=(values["sum_exp_logit"] * scale).sum(0),
        n_greater=jnp.moveaxis(integers[shape.top_k :].sum(1), 0, -1),
        top=top,
        top_id=top_id,
        sum_exp_tempered=tempered,
    )
    return running, values
