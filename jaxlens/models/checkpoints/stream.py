"""Leaves of a checkpoint one after another, so that they are never in memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxlens.models.checkpoints import checks, inventory, layout, stack, stored_tensor, variants

Leaves = Iterator[tuple[str, np.ndarray]]
"""Path and value of each leaf, float32 and stacked over layers, in the order of the paths."""

Stored = dict[int, tuple[stored_tensor.Tensor, bool]]
"""Of a leaf: layer -> tensor, which can be read at any time, and whether it is turned."""


def of_tensors(
    tensors: Iterable[stored_tensor.Tensor],
    expected: layout.Layout,
    flavour: layout.Flavour,
    label: str,
) -> Leaves:
    """What `stack.stack` returns, leaf by leaf.

    Args:
        tensors: All tensors of the checkpoint, each of which can be read at any time.
        expected: What they must fit.
        flavour: Whose names and orientation they have.
        label: What to call the checkpoint where a tensor is missing.

    Raises:
        DataError: As `stack.stack`; where a value is refused, leaves before it have been given.
    """
    found: dict[str, Any] = {}
    kernels: list[variants.Kernel] = []
    seen, others = inventory.Seen(), dict[str, str]()
    for tensor, leaf, layer in inventory.placed(tensors, expected, flavour, seen, others):
        turned = stored_tensor.is_turned(tensor, leaf, flavour, kernels)
        found.setdefault(leaf.path, {})[layer] = tensor, turned
    notes = inventory.settle(found, seen, others, expected, flavour, label)
    turn_square = variants.are_unusual(kernels, expected, flavour, notes)
    for note in notes:
        stack.logger.info("%s: %s", label, note)
    yield from without_tied_head(
        found, lambda path: _stacked(found[path], expected, path, turn_square), expected, label
    )


def without_tied_head(
    paths: Iterable[str], read: Any, expected: layout.Layout, label: str
) -> Leaves:
    """Leaves in the order of their paths, but for a head that repeats the tied embedding.

    Args:
        paths: What is stored.
        read: Gives the leaf of a path.
        expected: What it must fit.
        label: What to call the checkpoint.

    Raises:
        DataError: The head contradicts the embedding that it is tied to.
    """
    paths = set(paths)
    if expected.architecture.tie_word_embeddings and expected.head in paths:
        both = {path: read(path) for path in (expected.head, expected.embedding)}
        paths = paths - both.keys() | checks.drop_tied_head(both, expected, label).keys()
        del both
    for path in sorted(paths):
        yield path, read(path)


def of_params(params: Mapping[str, Any]) -> Leaves:
    """Leaves of a pytree, which is emptied: each is let go of once the next one is asked for."""
    leaves = layout.flat(params)
    if isinstance(params, dict):
        params.clear()
    for path in sorted(leaves):
        yield path, leaves.pop(path)


def _stacked(
    stored: Stored | np.ndarray, expected: layout.Layout, path: str, turn_square: bool
) -> np.ndarray:
    if isinstance(stored, np.ndarray):  # zeros in the place of what is not stored
        return stored
    leaf = expected.by_path[path]
    value = stack.aligned(expected.stacked_shape(leaf))
    for layer, (tensor, turned) in stored.items():
        if leaf.either_way and leaf.is_square:
            turned = turned != turn_square
        value[layer if expected.is_layered(leaf) else ...] = stored_tensor.read(tensor, turned)
    return value
