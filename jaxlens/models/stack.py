"""The tensors of a checkpoint to the stacked float32 pytree and back, every one checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlens import errors, types
from jaxlens.models import files, layout

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Stored types that are accepted; all become float32."""

_ALIGNMENT = 64


class Tensor(NamedTuple):
    """One stored tensor, not read yet, so that it can be refused for the price of a header.

    Attributes:
        name: Its name there.
        dtype: Name of its type there.
        shape: Its shape there.
        read: Gives its value.
        file: What to call the file that it came from.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    file: str


def of_array(name: str, value: np.ndarray, file: str) -> Tensor:
    """A tensor that is in memory."""
    return Tensor(name, value.dtype.name, value.shape, lambda: value, file)


def stack(
    tensors: Iterable[Tensor],
    architecture: types.Architecture,
    flavour: layout.Flavour,
    label: str,
) -> types.Params:
    """Stacks the tensors of a checkpoint over layers, each checked as it is read.

    Args:
        tensors: All tensors of the checkpoint, in any order.
        architecture: What they must fit.
        flavour: Whose names and orientation they have.
        label: What to call the checkpoint where a tensor is missing.

    Raises:
        DataError: A tensor is missing, unexpected, twice there, of the wrong type or shape, or
            not finite.
    """
    stacks: dict[str, np.ndarray] = {}
    seen: set[tuple[str, int]] = set()
    for tensor in tensors:
        if layout.is_buffer(tensor.name, flavour):
            continue
        leaf, layer = _place(tensor, architecture, flavour)
        if (leaf.path, layer) in seen:
            raise errors.DataError(f"{tensor.file}: tensor {tensor.name} is there twice")
        seen.add((leaf.path, layer))
        value = _checked(tensor, leaf, architecture, flavour)
        if leaf.path not in stacks:
            stacks[leaf.path] = _aligned(leaf.stacked_shape(architecture))
        stacks[leaf.path][layer if leaf.is_layered else ...] = value
    for leaf in layout.required(architecture):
        for layer in range(architecture.n_layer if leaf.is_layered else 1):
            if (leaf.path, layer) not in seen:
                raise errors.DataError(f"{label}: tensor {leaf.name(flavour, layer)} is missing")
    return _settle_head(layout.nested(stacks), architecture, label)


def unstack(
    params: types.Params, architecture: types.Architecture, flavour: layout.Flavour
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values in the layout of a container, the inverse of ``stack``."""
    for path, stacked in layout.flat(params).items():
        leaf = layout.LEAVES[path]
        prefix = "" if path.startswith("lm_head") else layout.PREFIX + layout.SEPARATOR[flavour]
        value = np.asarray(stacked)
        if leaf.is_transposed(flavour):
            value = np.swapaxes(value, -1, -2)
        for layer in range(architecture.n_layer if leaf.is_layered else 1):
            yield prefix + leaf.name(flavour, layer), value[layer] if leaf.is_layered else value


def from_memory(leaves: Mapping[str, Any]) -> Iterator[Tensor]:
    """Tensors of a flattened state dict: arrays or PyTorch tensors.

    Raises:
        DataError: A value is no array.
    """
    for name, value in leaves.items():
        if hasattr(value, "detach"):
            # PyTorch's bfloat16 has no NumPy type, so its floats go through float32.
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value
            value = value.numpy()
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise errors.DataError(f"state: {files.shown(name)} is no array") from error
        yield of_array(name, array, "state")


def cast(params: types.Params, dtype: str) -> types.Params:
    """Parameters in the type to store, as NumPy arrays.

    Raises:
        DataError: A value overflows in ``dtype``.
    """
    kind = jnp.dtype(dtype)
    leaves = {}
    for path, value in layout.flat(params).items():
        with np.errstate(over="ignore"):
            leaves[path] = np.asarray(value).astype(np.float32, copy=False).astype(kind, copy=False)
        if not np.isfinite(leaves[path]).all():
            raise errors.DataError(f"parameters: {path} overflows in {dtype}", "use float32")
    return layout.nested(leaves)


def check(params: types.Params, architecture: types.Architecture, label: str) -> types.Params:
    """Stacked parameters, if every leaf is there with its shape and finite floats.

    Raises:
        DataError: Naming the leaf.
    """
    leaves = layout.flat(params)
    check_shapes({k: (v.shape, v.dtype.name) for k, v in leaves.items()}, architecture, label)
    for path, value in leaves.items():
        # Values on devices are checked there: they may be sharded over more than one.
        finite = np.isfinite if isinstance(value, np.ndarray) else jnp.isfinite
        if not bool(finite(value).all()):
            raise errors.DataError(f"{label}: tensor {path} holds values that are not finite")
    return _settle_head(params, architecture, label)


def check_shapes(
    leaves: Mapping[str, tuple[tuple[int, ...], str]], architecture: types.Architecture, label: str
) -> None:
    """Refuses stacked leaves, given as path -> (shape, dtype), that do not fit.

    Raises:
        DataError: Naming the leaf.
    """
    for path, (shape, dtype) in leaves.items():
        if path not in layout.LEAVES:
            raise errors.DataError(f"{label}: unexpected tensor {files.shown(path)}")
        _check_dtype(dtype, f"{label}: tensor {path}")
        expected = layout.LEAVES[path].stacked_shape(architecture)
        check_shape(tuple(shape), expected, f"{label}: tensor {path}")
    for leaf in layout.required(architecture):
        if leaf.path not in leaves:
            raise errors.DataError(f"{label}: tensor {leaf.path} is missing")


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Memory that JAX on a CPU uses as it is; where it is not aligned so, JAX makes a copy."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _place(
    tensor: Tensor, architecture: types.Architecture, flavour: layout.Flavour
) -> tuple[layout.Leaf, int]:
    found = layout.find(tensor.name, flavour)
    if found is None:
        raise errors.DataError(f"{tensor.file}: unexpected tensor {files.shown(tensor.name)}")
    if found[1] >= architecture.n_layer:
        raise errors.DataError(
            f"{tensor.file}: unexpected tensor {tensor.name}",
            f"config.json says n_layer {architecture.n_layer}",
        )
    return found


def _checked(
    tensor: Tensor, leaf: layout.Leaf, architecture: types.Architecture, flavour: layout.Flavour
) -> np.ndarray:
    """The value of a tensor, float32 and in our orientation."""
    where = f"{tensor.file}: tensor {tensor.name}"
    _check_dtype(tensor.dtype, where)
    shape = leaf.shape(architecture)
    check_shape(tensor.shape, shape[::-1] if leaf.is_transposed(flavour) else shape, where)
    value = tensor.read()
    with np.errstate(over="ignore"):  # what overflows is refused on the next line
        value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise errors.DataError(f"{where} holds values that are not finite in float32")
    return value.T if leaf.is_transposed(flavour) else value


def _check_dtype(dtype: str, where: str) -> None:
    if dtype not in DTYPES:
        raise errors.DataError(f"{where} has dtype {dtype}", f"supported: {', '.join(DTYPES)}")


def check_shape(shape: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    """Refuses a tensor of another shape.

    Raises:
        DataError: Naming the tensor, which ``where`` does.
    """
    if shape != expected:
        raise errors.DataError(
            f"{where} has shape {list(shape)}, expected {list(expected)}",
            "weights and config.json are of different models",
        )


def _settle_head(
    params: types.Params, architecture: types.Architecture, label: str
) -> types.Params:
    """Drops a stored head that repeats the tied embedding; refuses one that contradicts it."""
    head = params.get("lm_head", {})
    if not architecture.tie_word_embeddings or "weight" not in head:
        return params
    if not bool((head["weight"] == params["wte"]).all()):
        raise errors.DataError(
            f"{label}: lm_head differs from wte although config.json ties them",
            'if the head is its own, set "tie_word_embeddings": false',
        )
    rest = {key: value for key, value in params.items() if key != "lm_head"}
    return {**rest, "lm_head": {"bias": head["bias"]}} if "bias" in head else rest
