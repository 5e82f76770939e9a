"""What depends on the backend, in one place: each choice with its reason and its figure.

Figures are of GPT-2 small's step of 64 x 1,024 tokens with bfloat16 operands. Those of CPUs are
times. No accelerator has been measured: theirs are bytes a token in the program that XLA makes for
an H100 (``jaxlens bench --compile-only h100``), or the final schedule for a TPU v5e.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax

T = TypeVar("T")

_LEAST_GROUP = 32  # tokens, of which fewer would leave too little to do for a multiply
_OTHER_SUMS = 2**21  # logits, from which on XLA's reductions for CPUs have other last digits
_LANES = 128  # columns that a vector of a TPU, and a multiply of a GPU, takes at once


@dataclass(frozen=True)
class Tuning:
    """Choices of one kind of backend.

    Attributes:
        implementation: Which lens a run takes where none is named; ``tiled`` where the kernel
            does not read what is asked for. By its final schedule a v5e's step takes 0.81 s with
            the kernel and 1.21 s without, and moves 4.0 MB a token instead of 4.6. A CPU
            interprets the kernel; that of GPUs has not been measured.
        keeps_exponentials: Whether the exponentials of a tile, or of attention, are written once
            and read by every sum. CPUs would compute them again for each sum; others make one
            kernel of all sums, and writing the exponentials costs an H100 8.3 MB a token.
        keeps_biased_logits: Whether the sum of logits and bias (of the padding, where the head has
            none) is written once more, in tiles with a bias. Else each reader adds it, to the same
            bits, and an H100 moves 5.5 MB a token less. Tiles without one are not written again,
            which a CPU's interior layers would spend 5 % of their time on, 10 % in bfloat16.
        keeps_final_logits: Whether the logits of the predicted token are written before they join
            those of the reference tokens. For GPUs jaxlib 0.10.2 cannot compile a kernel of
            both where the vocabulary needs no padding.
        groups_columns: Whether integers are reduced in groups of 64 columns first, twice as fast
            on CPUs. A TPU would transpose each tile for it, a GPU splits the kernel (2.6 MB).
        pairs_maximum: Whether the greatest logit and its column are one reduction of pairs, which a
            GPU makes in one pass over the logits instead of two (2.6 MB). On a TPU the second pass
            keeps too much in registers beside the rank counts: both take 57,000 cycles a tile with
            pairs, 63,000 without.
        masks_references_once: Whether one mask leaves the columns of all reference tokens out of
            the rank counts, and those tokens are compared with each other. With a mask for each
            reference, which a TPU unpacks beside every logit, both take 94,000 cycles a tile.
        sorts_rows: Whether several best tokens are found by `jax.lax.top_k`, for which a TPU sorts
            every row: with five, a v5e's step takes 13 s, and 1.9 s if they are taken one after
            another. Of the end layers that takes a CPU four times as long, and an H100 moves 28 MB
            a token for it instead of 20.
        multiplies_means: Whether means of logits under an end layer are a small product, for which
            CPUs read the logits once, and twice as fast as for a sum.
        scans_ends: Whether the end layers are multiplied with one tile after the other, which stays
            in a CPU's cache. The scan fills all their logits with zeros first and copies each tile
            to its place; one product writes them once (1.3 MB).
        slices_bits: Whether parts of a bfloat16 array are taken as the integers of its bits. CPUs
            would convert the whole array to float32 first, and back what is taken: all weights and
            the unembedding once a step, 0.6 GB of memory and a sixth of the time of 256 tokens.
        attention_block: Queries a block of causal attention: few products that are masked away and
            scores that fit a CPU's cache; on a GPU 64 make 118 kernels a layer of 1,024 positions.
        slopes_block: Tokens whose logits of one layer are in memory at once while temperatures are
            fitted; 64 make 45,000 kernels of 2,048 tokens.
        slopes_at_once: Whether all points of the search are one reduction of these logits; CPUs
            keep them in cache from one point to the next.
        tile: Most columns of the vocabulary a tile; on CPUs so few that its logits stay in cache.
        block: Most tokens a block. The unembedding is read twice a block: with 256 tokens an H100
            reads 0.6 MB a token for it.
        interior_rows: Most rows, of all interior layers, that are multiplied with a tile at once:
            with 1,024 rows and their logits in cache a CPU's lens takes 3 % less time for 11
            layers between the ends, 13 % for 29, and 15 % with bfloat16 operands. None for all
            tokens of a block.
        end_logits_bytes: Most bytes of the end layers' logits of a block.
        tile_logits_bytes: Most bytes of the interior layers' logits of a tile, so that what reads
            them finds them on the chip: a TPU's VMEM has 128 MiB, of which XLA gives a program
            about half and a tile needs two; an H100's second-level cache has 50 MB.
        step_tokens: Positions of a step by default: enough for a core, or to read the weights of
            the blocks once for many tokens.
    """

    implementation: Literal["tiled", "pallas"]
    keeps_exponentials: bool
    keeps_biased_logits: bool
    keeps_final_logits: bool
    groups_columns: bool
    pairs_maximum: bool
    masks_references_once: bool
    sorts_rows: bool
    multiplies_means: bool
    scans_ends: bool
    slices_bits: bool
    attention_block: int
    slopes_block: int
    slopes_at_once: bool
    tile: int
    block: int
    interior_rows: int | None
    end_logits_bytes: int
    tile_logits_bytes: int | None
    step_tokens: int


CPU = Tuning(
    implementation="tiled",
    keeps_exponentials=True,
    keeps_biased_logits=True,
    keeps_final_logits=False,
    groups_columns=True,
    pairs_maximum=False,
    masks_references_once=False,
    sorts_rows=True,
    multiplies_means=True,
    scans_ends=True,
    slices_bits=True,
    attention_block=64,
    slopes_block=64,
    slopes_at_once=False,
    tile=512,
    block=128,
    interior_rows=1024,
    end_logits_bytes=64 * 2**20,
    tile_logits_bytes=None,
    step_tokens=2_048,
)
GPU = Tuning(
    implementation="tiled",
    keeps_exponentials=False,
    keeps_biased_logits=False,
    keeps_final_logits=True,
    groups_columns=False,
    pairs_maximum=True,
    masks_references_once=False,
    sorts_rows=True,
    multiplies_means=False,
    scans_ends=False,
    slices_bits=False,
    attention_block=256,
    slopes_block=1024,
    slopes_at_once=True,
    tile=4096,
    block=256,
    interior_rows=None,
    end_logits_bytes=2**30,
    tile_logits_bytes=48 * 10**6,
    step_tokens=65_536,
)
TPU = dataclasses.replace(
    GPU,
    implementation="pallas",
    keeps_final_logits=False,
    masks_references_once=True,
    sorts_rows=False,
    tile=2048,
    tile_logits_bytes=25 * 2**20,
)


def of_platform(platform: str | None = None) -> Tuning:
    """Choices for a platform, by default that of the default backend."""
    return {"cpu": CPU, "tpu": TPU}.get(platform or jax.default_backend(), GPU)


def choose_tile(vocab_size: int, n_layers: int, platform: str | None = None, parts: int = 1) -> int:
    """Columns a tile: equal tiles of whole lanes, so that padding takes next to nothing.

    Args:
        vocab_size: Columns of the unembedding.
        n_layers: Blocks of the model; streams between the ends are one less.
        platform: Of the device; that of the default backend by default.
        parts: Devices that share the tiles, each of which gets as many.
    """
    chosen = of_platform(platform)
    widest = chosen.tile
    if chosen.tile_logits_bytes is not None:
        fitting = chosen.tile_logits_bytes // (4 * max(1, n_layers - 1) * chosen.block)
        widest = max(_LANES, min(widest, fitting // _LANES * _LANES))
    n_tiles = parts * -(-vocab_size // (parts * widest))
    return min(-(-vocab_size // (n_tiles * _LANES)) * _LANES, vocab_size)


def choose_block(vocab_size: int, tokens: int, platform: str | None = None) -> int:
    """Tokens a block: as many as the end logits leave room for, in blocks of equal size."""
    chosen = of_platform(platform)
    block = max(1, min(chosen.block, chosen.end_logits_bytes // (2 * 4 * vocab_size), tokens))
    return -(-tokens // -(-tokens // block))


def group_size(tokens: int, layers: int, width: int, most_rows: int | None) -> int:
    """Tokens of a block that are taken at once: all, or a part of them, so that none is ragged.

    Where a part would have other bits than all, as runs were begun with, it is all.

    Args:
        tokens: Of the block.
        layers: Rows of each token.
        width: Columns of a tile.
        most_rows: See ``Tuning.interior_rows``.
    """
    rows = tokens * layers
    if most_rows is None or rows <= most_rows or rows * width >= _OTHER_SUMS:
        return tokens
    sizes = [size for size in range(_LEAST_GROUP, tokens) if tokens % size == 0]
    fitting = [size for size in sizes if size * layers <= most_rows]
    return max(fitting, default=min(sizes, default=tokens))


def by_platform(make: Callable[[Tuning], Callable[..., T]], *arguments: Any) -> T:
    """Calls ``make(tuning)`` of the platform that the program around it is compiled for.

    All of them are traced, one is compiled; where a program is compiled for a device that is not
    the default, it gets that device's choices.
    """
    cpu, tpu, other = make(CPU), make(TPU), make(GPU)
    if cpu is tpu is other:
        return other(*arguments)
    more = {} if tpu is other else {"tpu": tpu}
    return jax.lax.platform_dependent(*arguments, cpu=cpu, **more, default=other)


def keep(x: jax.Array, choice: str) -> jax.Array:
    """Has ``x`` written to memory where the named choice says so."""

    def make(tuning: Tuning) -> Callable[[jax.Array], jax.Array]:
        return jax.lax.optimization_barrier if getattr(tuning, choice) else _same

    return by_platform(make, x)


def _same(x: jax.Array) -> jax.Array:
    return x
