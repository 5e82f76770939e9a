"""Forms in which one model is stored: kernels either way round, no biases, a tied head alone.

Each is recognised from the checkpoint as a whole, never from one tensor: a lone tensor that is
missing or turned is damage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxlens import errors
from jaxlens.models.checkpoints import layout


class Kernel(NamedTuple):
    """A kernel whose shape tells how it is stored: its tensor, and whether as ``[out, in]``."""

    where: str
    leaf: layout.Leaf
    is_turned: bool


def settle_orientation(
    stacks: dict[str, np.ndarray],
    kernels: list[Kernel],
    expected: layout.Layout,
    flavour: layout.Flavour,
    notes: list[str],
) -> None:
    """Transposes square kernels to match the other kernels of their checkpoint.

    Args:
        stacks: Stacked kernels, ``[in, out]`` where the shape tells, as stored where not, with
            the flavour's own orientation assumed; changed in place.
        kernels: Those whose shape tells.
        expected: What the checkpoint must fit.
        flavour: Whose names they have.
        notes: What was done is added.

    Raises:
        DataError: Naming a kernel that is stored the other way round than most.
    """
    if not are_unusual(kernels, expected, flavour, notes):
        return
    for path, stacked in stacks.items():
        leaf = expected.by_path[path]
        if leaf.either_way and leaf.is_square:
            for layer in range(expected.architecture.n_layer):  # one at a time, for the memory
                stacked[layer] = stacked[layer].T.copy()


def are_unusual(
    kernels: list[Kernel], expected: layout.Layout, flavour: layout.Flavour, notes: list[str]
) -> bool:
    """Whether a checkpoint stores its kernels the other way round than its flavour does.

    A square matrix looks the same either way. The kernels whose shape tells must all agree; in
    GPT-2 every checkpoint has some, since the attention's ``c_attn`` is never square.

    Args:
        kernels: Those whose shape tells.
        expected: What the checkpoint must fit.
        flavour: Whose names they have.
        notes: What was found is added.

    Raises:
        DataError: Naming a kernel that is stored the other way round than most.
    """
    turned = [kernel for kernel in kernels if kernel.is_turned]
    straight = [kernel for kernel in kernels if not kernel.is_turned]
    if turned and straight:
        few, order = (
            (turned, "[in, out]") if len(turned) <= len(straight) else (straight, "[out, in]")
        )
        shape = few[0].leaf.shape
        stored, other = (shape[::-1], shape) if few[0].is_turned else (shape, shape[::-1])
        raise errors.DataError(
            f"{few[0].where} has shape {list(stored)}, expected {list(other)}",
            f"{len(kernels) - len(few)} of the other kernels are stored {order}, "
            "and a checkpoint has one orientation",
        )
    usual = flavour == "flax"
    if not kernels or bool(turned) == usual:
        return False
    order, like = ("[out, in]", "torch.nn.Linear") if turned else ("[in, out]", "flax.linen.Dense")
    witness = next(x for x in expected.leaves if x.either_way and not x.is_square)
    notes.append(
        f"kernels are stored {order} as in {like}, by the shape of {witness.path.split('/')[-2]}; "
        + expected.orientation_note
    )
    return True


def adopt_head(stacks: dict[str, Any], expected: layout.Layout, notes: list[str]) -> bool:
    """Takes the head for the embedding where a file keeps the two under the head's name alone.

    safetensors stores memory that is shared once, under one of its names.

    Returns:
        Whether it did; ``notes`` then says so.
    """
    embedding, head = expected.embedding, expected.head
    if embedding in stacks or head not in stacks or not expected.architecture.tie_word_embeddings:
        return False
    stacks[embedding] = stacks.pop(head)
    name = head.partition("/")[0]
    notes.append(f"{embedding} is stored under the name {name}, which config.json ties to it")
    return True


def add_biases(stacks: dict[str, Any], expected: layout.Layout, notes: list[str]) -> set[str]:
    """Zeros for biases that a checkpoint leaves out as a whole.

    Returns:
        Paths of the leaves that were added; ``notes`` says so.
    """
    added: set[str] = set()
    for what, paths in expected.zeros.items():
        if any(path in stacks for path in paths):
            continue
        for path in paths:
            shape = expected.stacked_shape(expected.by_path[path])
            stacks[path] = np.zeros(shape, np.float32)
            added.add(path)
        notes.append(f"none of the {what} has a bias; zeros stand for them")
    return added
