"""The tensors of a checkpoint to the stacked float32 pytree and back, every one checked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlens import errors, types
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import checks, layout, names, variants

logger = logging.getLogger("jaxlens")

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
    tensors: Iterable[Tensor], expected: layout.Layout, flavour: layout.Flavour, label: str
) -> types.Params:
    """Stacks the tensors of a checkpoint over layers, each checked as it is read.

    Args:
        tensors: All tensors of the checkpoint, in any order.
        expected: What they must fit.
        flavour: Whose names and orientation they have.
        label: What to call the checkpoint where a tensor is missing.

    Raises:
        DataError: A tensor is missing, unexpected, twice there, of the wrong type or shape, or
            not finite.
    """
    stacks: dict[str, np.ndarray] = {}
    seen: dict[tuple[str, int], str] = {}
    kernels: list[variants.Kernel] = []
    others: dict[str, str] = {}
    for tensor in tensors:
        if expected.is_buffer(tensor.name, flavour):
            continue
        task = names.other_task(tensor.name, layout.SEPARATOR[flavour])
        if task is not None:
            others.setdefault(task, untrusted.shown(tensor.name))
            continue
        leaf, layer = _leaf_of(tensor, expected, flavour)
        if (leaf.path, layer) in seen:
            raise errors.DataError(
                f"{tensor.file}: tensor {untrusted.shown(tensor.name)} is there twice, "
                f"also as {untrusted.shown(seen[leaf.path, layer])}",
                "leave one of the two out",
            )
        seen[leaf.path, layer] = tensor.name
        value = _checked(tensor, leaf, flavour, kernels)
        if leaf.path not in stacks:
            stacks[leaf.path] = _aligned(expected.stacked_shape(leaf))
        stacks[leaf.path][layer if expected.is_layered(leaf) else ...] = value
    notes = _ignored(others, stacks, expected)
    if variants.adopt_head(stacks, expected, notes):
        seen[expected.embedding, 0] = seen[expected.head, 0]
    added = variants.add_biases(stacks, expected, notes)
    present = {*seen, *((p, k) for p in added for k in range(expected.architecture.n_layer))}
    _require_all(present, expected, flavour, others, label)
    variants.settle_orientation(stacks, kernels, expected, flavour, notes)
    params = layout.nested(checks.drop_tied_head(stacks, expected, label))
    for note in notes:
        logger.info("%s: %s", label, note)
    return params


def unstack(
    params: types.Params, expected: layout.Layout, flavour: layout.Flavour
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values in the layout of a container, the inverse of ``stack``."""
    for path, stacked in layout.flat(params).items():
        leaf = expected.by_path[path]
        value = np.asarray(stacked)
        if flavour in leaf.transposed_in:
            value = np.swapaxes(value, -1, -2)
        for layer in range(expected.copies(leaf)):
            name = expected.full_name(leaf, flavour, layer)
            yield name, value[layer] if expected.is_layered(leaf) else value


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


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Memory that JAX on a CPU uses as it is; where it is not aligned so, JAX makes a copy."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _ignored(
    others: Mapping[str, str], stacks: Collection[str], expected: layout.Layout
) -> list[str]:
    """Notes on the heads of other tasks, which are not read."""
    tied = f"{expected.embedding}, which config.json ties to it"
    unembedding = checks.part_of(expected.head) if expected.head in stacks else tied
    return [
        f"ignored {name}, a head for {task}; the unembedding is {unembedding}"
        for task, name in others.items()
    ]


def _leaf_of(
    tensor: Tensor, expected: layout.Layout, flavour: layout.Flavour
) -> tuple[layout.Leaf, int]:
    """Leaf and layer of a tensor."""
    match = expected.find(tensor.name, flavour)
    shown = untrusted.shown(tensor.name)
    n_layer = expected.architecture.n_layer
    if match is None:
        names.refuse_no_model(
            tensor.name, layout.SEPARATOR[flavour], f"{tensor.file}: tensor {shown}"
        )
        raise errors.DataError(
            f"{tensor.file}: unexpected tensor {shown}",
            f"names are those of {expected.title}, such as {expected.example(flavour)}; "
            "docs/models.md lists the prefixes that may stand before them",
        )
    if match[1] >= n_layer:
        raise errors.DataError(
            f"{tensor.file}: unexpected tensor {shown}", f"config.json says n_layer {n_layer}"
        )
    return match


def _checked(
    tensor: Tensor,
    leaf: layout.Leaf,
    flavour: layout.Flavour,
    kernels: list[variants.Kernel],
) -> np.ndarray:
    """The value of a tensor, float32 and in our orientation, as far as its shape tells that.

    Kernels that tell are added to ``kernels``.
    """
    where = f"{tensor.file}: tensor {untrusted.shown(tensor.name)}"
    checks.require_dtype(tensor.dtype, where)
    shape = leaf.shape
    is_turned = flavour in leaf.transposed_in
    if leaf.either_way and not leaf.is_square:
        is_turned = is_turned if tensor.shape not in (shape, shape[::-1]) else tensor.shape != shape
        kernels.append(variants.Kernel(where, leaf, is_turned))
    checks.require_shape(tensor.shape, shape[::-1] if is_turned else shape, where)
    value = tensor.read()
    with np.errstate(over="ignore"):  # what overflows is refused on the next line
        value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise errors.DataError(
            f"{where} holds values that are not finite in float32", checks.FINITE
        )
    return value.T if is_turned else value


def _require_all(
    present: Collection[tuple[str, int]],
    expected: layout.Layout,
    flavour: layout.Flavour,
    others: Mapping[str, str],
    label: str,
) -> None:
    """Refuses a checkpoint that lacks a leaf of a layer.

    Raises:
        DataError: Naming the tensor, and what may explain it.
    """
    # Biases may be zeros that were added for every layer; matrices are only there if stored.
    matrices = {leaf.path for leaf in expected.leaves if len(leaf.shape) > 1}
    last = max((layer for path, layer in present if path in matrices), default=-1)
    for leaf in expected.required():
        for layer in range(expected.copies(leaf)):
            if (leaf.path, layer) not in present:
                hint = _why_missing(leaf, layer > last, expected, others)
                name = expected.name(leaf, flavour, layer)
                raise errors.DataError(f"{label}: tensor {name} is missing", hint)


def _why_missing(
    leaf: layout.Leaf,
    is_beyond: bool,
    expected: layout.Layout,
    others: Mapping[str, str],
) -> str:
    """What may explain that a leaf is not there, and what to do.

    Args:
        leaf: The leaf.
        is_beyond: Whether it belongs to a layer beyond the last that is there.
        expected: What the checkpoint was to fit.
        others: Tasks -> names of the heads that are there.
    """
    head, embedding = checks.part_of(expected.head), expected.embedding
    if expected.is_layered(leaf) and is_beyond:
        return f"config.json says n_layer {expected.architecture.n_layer}"
    if any(leaf.path in paths for paths in expected.zeros.values()):
        return f"only all {' or all '.join(expected.zeros)} together may have none"
    if leaf.path == expected.head and others:
        task, name = next(iter(others.items()))
        return (
            f"config.json does not tie it to {embedding}, and {name} is a head for {task}, which "
            "says nothing about tokens; use the model before it was given that head"
        )
    if leaf.path == expected.head:
        return 'if the head is the embedding, set "tie_word_embeddings": true in config.json'
    if leaf.path == embedding:
        return f'{head} stands for it only if config.json has "tie_word_embeddings": true'
    return "fetch the model again"
