"""Leaves of a checkpoint one after another, so that they are never in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlens.models.checkpoints import (
    checks,
    digest,
    inventory,
    layout,
    stack,
    stored_tensor,
    variants,
)

Leaves = Iterator[tuple[str, np.ndarray]]
"""Path and value of each leaf, stacked over layers, in the order of the paths."""

_CHUNK = 1 << 20
"""Numbers that are converted at a time, so that a large leaf is not there in two types."""

Stored = dict[int, tuple[stored_tensor.Tensor, bool]]
"""Of a leaf: layer -> tensor, which can be read at any time, and whether it is turned."""


def of_tensors(
    tensors: Iterable[stored_tensor.Tensor],
    expected: layout.Layout,
    flavour: layout.Flavour,
    label: str,
    dtype: str,
    total: digest.Digest,
) -> Leaves:
    """What `stack.stack` returns, leaf by leaf and in another type.

    Args:
        tensors: All tensors of the checkpoint, each of which can be read at any time.
        expected: What they must fit.
        flavour: Whose names and orientation they have.
        label: What to call the checkpoint where a tensor is missing.
        dtype: Of the leaves.
        total: Is told their values in float32.

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

    def read(path: str, total: digest.Digest | None = None) -> np.ndarray:
        kind = "float32" if total is None else dtype
        return _stacked(found[path], expected, path, turn_square, kind, total)

    for path in kept(found, read, expected, label):
        yield path, read(path, total)


def kept(
    paths: Iterable[str],
    read: Callable[[str], np.ndarray],
    expected: layout.Layout,
    label: str,
) -> list[str]:
    """Paths in their order, but for a head that repeats the tied embedding.

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
    return sorted(paths)


def of_params(params: Mapping[str, Any], dtype: str, total: digest.Digest) -> Leaves:
    """Leaves of a pytree, which is emptied: each is let go of once the next one is asked for."""
    leaves = layout.flat(params)
    if isinstance(params, dict):
        params.clear()
    return converted(((path, leaves.pop(path)) for path in sorted(leaves)), dtype, total)


def converted(leaves: Leaves, dtype: str, total: digest.Digest) -> Leaves:
    """Leaves in another type.

    Args:
        leaves: Float32.
        dtype: That they get.
        total: Is told their values before that.
    """
    for path, value in leaves:
        total.leaf(path, value)
        yield path, np.asarray(value).astype(jnp.dtype(dtype), copy=False)
        del value


def _stacked(
    stored: Stored | np.ndarray,
    expected: layout.Layout,
    path: str,
    turn_square: bool,
    dtype: str,
    total: digest.Digest | None,
) -> np.ndarray:
    leaf = expected.by_path[path]
    shape = expected.stacked_shape(leaf)
    if total is not None:
        total.begin(path, shape)
    if isinstance(stored, np.ndarray):  # zeros in the place of what is not stored
        if total is not None:
            total.add(stored)
        return stored.astype(jnp.dtype(dtype), copy=False)
    value = stack.aligned(shape, dtype)
    for layer, (tensor, turned) in sorted(stored.items(), key=lambda item: item[0]):
        if leaf.either_way and leaf.is_square:
            turned = turned != turn_square
        place = value[layer] if expected.is_layered(leaf) else value
        for rows, part in stored_tensor.chunks(tensor, turned, _CHUNK):
            place[rows] = part
            if total is not None:
                total.add(part)
    return value
