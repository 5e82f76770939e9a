"""What every checkpoint's weights are checked for: types, shapes, finite values, one head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlens import errors, types
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import layout

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Stored types that are accepted; all become float32."""

FINITE = "training diverged or the file is damaged: fetch it again, or take an earlier checkpoint"
"""Remedy for values that are not finite."""

_OTHER = "weights and config.json must be of one model"


def require(params: types.Params, expected: layout.Layout, label: str) -> types.Params:
    """Stacked parameters, if every leaf is there with its shape and finite floats.

    Raises:
        DataError: Naming the leaf.
    """
    leaves = layout.flat(params)
    require_shapes({k: (v.shape, v.dtype.name) for k, v in leaves.items()}, expected, label)
    for path, value in leaves.items():
        require_finite(value, path, label)
    return layout.nested(drop_tied_head(leaves, expected, label))


def require_finite(value: Any, path: str, label: str) -> None:
    """Refuses a leaf that holds NaN or infinity.

    Raises:
        DataError: Naming the leaf.
    """
    # Values on devices are checked there: they may be sharded over more than one.
    finite = np.isfinite if isinstance(value, np.ndarray) else jnp.isfinite
    if not bool(finite(value).all()):
        raise errors.DataError(f"{label}: tensor {path} holds values that are not finite", FINITE)


def require_shapes(
    leaves: Mapping[str, tuple[tuple[int, ...], str]], expected: layout.Layout, label: str
) -> None:
    """Refuses stacked leaves, given as path -> (shape, dtype), that do not fit.

    Raises:
        DataError: Naming the leaf.
    """
    for path, (shape, dtype) in leaves.items():
        if path not in expected.by_path:
            raise errors.DataError(f"{label}: unexpected tensor {untrusted.shown(path)}", _OTHER)
        require_dtype(dtype, f"{label}: tensor {path}")
        stacked = expected.stacked_shape(expected.by_path[path])
        require_shape(tuple(shape), stacked, f"{label}: tensor {path}")
    for leaf in expected.required():
        if leaf.path not in leaves:
            raise errors.DataError(f"{label}: tensor {leaf.path} is missing", _OTHER)


def require_shape(shape: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    """Refuses a tensor of another shape.

    Raises:
        DataError: Naming the tensor, which ``where`` does.
    """
    if shape != expected:
        raise errors.DataError(
            f"{where} has shape {list(shape)}, expected {list(expected)}",
            "weights and config.json are of different models",
        )


def require_dtype(dtype: str, where: str) -> None:
    """Refuses a tensor of a type that is not read.

    Raises:
        DataError: Naming the tensor, which ``where`` does.
    """
    if dtype not in DTYPES:
        raise errors.DataError(f"{where} has dtype {dtype}", f"supported: {', '.join(DTYPES)}")


def drop_tied_head(leaves: dict[str, Any], expected: layout.Layout, label: str) -> dict[str, Any]:
    """Drops a stored head that repeats the tied embedding; refuses one that contradicts it."""
    if not expected.architecture.tie_word_embeddings or expected.head not in leaves:
        return leaves
    if not bool((leaves[expected.head] == leaves[expected.embedding]).all()):
        head = part_of(expected.head)
        raise errors.DataError(
            f"{label}: {head} differs from {expected.embedding} although config.json ties them",
            'if the head is its own, set "tie_word_embeddings": false',
        )
    return {path: value for path, value in leaves.items() if path != expected.head}


def part_of(path: str) -> str:
    """What users call a leaf: the part of the model that it belongs to."""
    return path.partition("/")[0]
