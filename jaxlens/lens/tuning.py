"""What depends on the backend, in one place: each choice with its reason and its figure.

Figures are of GPT-2 small's step of 64 x 1,024 tokens with bfloat16 operands. Those of CPUs are
times. No accelerator has been measured: theirs are bytes a token in the program that XLA makes for
an H100 (``jaxlens bench --compile-only h100``), or the final schedule for a TPU v5e.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """Choices of one kind of backend.

    Attributes:
        keeps_exponentials: Whether the exponentials of a tile, or of attention, are written once
            and read by every sum. CPUs would compute them again for each sum; others make one
            kernel of all sums, and writing the exponentials costs an H100 8.3 MB a token.
        keeps_biased_logits: Whether the sum of logits and bias (of the padding, where the head has
            none) is written once more. Else each reader adds it, to the same bits, and an H100
            moves 5.5 MB a token less.
        groups_columns: Whether integers are reduced in groups of 64 columns first, twice as fast
            on CPUs. A TPU would transpose each tile for it, a GPU splits the kernel (2.6 MB).
        scans_ends: Whether the end layers are multiplied with one tile after the other, which stays
            in a CPU's cache. The scan fills all their logits with zeros first and copies each tile
            to its place; one product writes them once (1.3 MB).
        attention_block: Queries a block of causal attention: few products that are masked away and
            scores that fit a CPU's cache; on a GPU 64 make 118 kernels a layer of 1,024 positions.
    """

    keeps_exponentials: bool
    keeps_biased_logits: bool
    groups_columns: bool
    scans_ends: bool
    attention_block: int


CPU = Tuning(
    keeps_exponentials=True,
    keeps_biased_logits=True,
    groups_columns=True,
    scans_ends=True,
    attention_block=64,
)
GPU = Tuning(
    keeps_exponentials=False,
    keeps_biased_logits=False,
    groups_columns=False,
    scans_ends=False,
    attention_block=256,
)
TPU = GPU


def by_platform(make: Callable[[Tuning], Callable[..., T]], *arguments: Any) -> T:
    """Calls ``make(tuning)`` of the platform that the program around it is compiled for.

    All of them are traced, one is compiled; where a program is compiled for a device that is not
    the default, it gets that device's choices.
    """
    if TPU == GPU:
        return jax.lax.platform_dependent(*arguments, cpu=make(CPU), default=make(GPU))
    return jax.lax.platform_dependent(*arguments, cpu=make(CPU), tpu=make(TPU), default=make(GPU))


def keep(x: jax.Array, choice: str) -> jax.Array:
    """Has ``x`` written to memory where the named choice says so."""

    def make(tuning: Tuning) -> Callable[[jax.Array], jax.Array]:
        return jax.lax.optimization_barrier if getattr(tuning, choice) else _same

    return by_platform(make, x)


def _same(x: jax.Array) -> jax.Array:
    return x
