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
from jaxlens.models.checkpoints import layout, names, variants

logger = logging.getLogger("jaxlens")

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Stored types that are accepted; all become float32."""

_FINITE = "training diverged or the file is damaged: fetch it again, or take an earlier checkpoint"
_OTHER = "weights and config.json must be of one model"
_ALIGNMENT = 64
# Layers that have one of them are there.
_PROOF = tuple(path for path, leaf in layout.LEAVES.items() if leaf.is_kernel)


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
    seen: dict[tuple[str, int], str] = {}
    kernels: list[variants.Kernel] = []
    others: dict[str, str] = {}
    for tensor in tensors:
        if layout.is_buffer(tensor.name, flavour):
            continue
        task = names.other_task(tensor.name, layout.SEPARATOR[flavour])
        if task is not None:
            others.setdefault(task, untrusted.shown(tensor.name))
            continue
        leaf, layer = _place(tensor, architecture, flavour)
        if (leaf.path, layer) in seen:
            raise errors.DataError(
                f"{tensor.file}: tensor {untrusted.shown(tensor.name)} is there twice, "
                f"also as {untrusted.shown(seen[leaf.path, layer])}",
                "leave one of the two out",
            )
        seen[leaf.path, layer] = tensor.name
        value = _checked(tensor, leaf, architecture, flavour, kernels)
        if leaf.path not in stacks:
            stacks[leaf.path] = _aligned(leaf.stacked_shape(architecture))
        stacks[leaf.path][layer if leaf.is_layered else ...] = value
    unembedding = "lm_head" if "lm_head/weight" in stacks else "wte, which config.json ties to it"
    notes = [
        f"ignored {name}, a head for {task}; the unembedding is {unembedding}"
        for task, name in others.items()
    ]
    if variants.adopt_head(stacks, architecture, notes):
        seen["wte", 0] = seen["lm_head/weight", 0]
    added = variants.add_biases(stacks, architecture, notes)
    present = {*seen, *((p, k) for p in added for k in range(architecture.n_layer))}
    _require_all(present, architecture, flavour, others, label)
    variants.settle_orientation(stacks, kernels, architecture, flavour, notes)
    params = _settle_head(layout.nested(stacks), architecture, label)
    for note in notes:
        logger.info("%s: %s", label, note)
    return params


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
            raise errors.DataError(
                f"{label}: tensor {path} holds values that are not finite", _FINITE
            )
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
            raise errors.DataError(f"{label}: unexpected tensor {untrusted.shown(path)}", _OTHER)
        _check_dtype(dtype, f"{label}: tensor {path}")
        expected = layout.LEAVES[path].stacked_shape(architecture)
        check_shape(tuple(shape), expected, f"{label}: tensor {path}")
    for leaf in layout.required(architecture):
        if leaf.path not in leaves:
            raise errors.DataError(f"{label}: tensor {leaf.path} is missing", _OTHER)


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
    shown = untrusted.shown(tensor.name)
    if found is None:
        names.refuse_no_model(
            tensor.name, layout.SEPARATOR[flavour], f"{tensor.file}: tensor {shown}"
        )
        raise errors.DataError(
            f"{tensor.file}: unexpected tensor {shown}",
            f"names are those of transformers' GPT-2, such as {layout.EXAMPLE[flavour]}; "
            "docs/models.md lists the prefixes that may stand before them",
        )
    if found[1] >= architecture.n_layer:
        raise errors.DataError(
            f"{tensor.file}: unexpected tensor {shown}",
            f"config.json says n_layer {architecture.n_layer}",
        )
    return found


def _checked(
    tensor: Tensor,
    leaf: layout.Leaf,
    architecture: types.Architecture,
    flavour: layout.Flavour,
    kernels: list[variants.Kernel],
) -> np.ndarray:
    """The value of a tensor, float32 and in our orientation, as far as its shape tells that.

    Kernels that tell are added to ``kernels``.
    """
    where = f"{tensor.file}: tensor {untrusted.shown(tensor.name)}"
    _check_dtype(tensor.dtype, where)
    shape = leaf.shape(architecture)
    is_turned = leaf.is_transposed(flavour)
    if leaf.is_kernel and not variants.is_square(leaf, architecture):
        is_turned = is_turned if tensor.shape not in (shape, shape[::-1]) else tensor.shape != shape
        kernels.append(variants.Kernel(where, leaf, is_turned))
    check_shape(tensor.shape, shape[::-1] if is_turned else shape, where)
    value = tensor.read()
    with np.errstate(over="ignore"):  # what overflows is refused on the next line
        value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise errors.DataError(f"{where} holds values that are not finite in float32", _FINITE)
    return value.T if is_turned else value


def _require_all(
    present: Collection[tuple[str, int]],
    architecture: types.Architecture,
    flavour: layout.Flavour,
    others: Mapping[str, str],
    label: str,
) -> None:
    """Refuses a checkpoint that lacks a leaf of a layer.

    Raises:
        DataError: Naming the tensor, and what may explain it.
    """
    last = max((layer for path, layer in present if path in _PROOF), default=-1)
    for leaf in layout.required(architecture):
        for layer in range(architecture.n_layer if leaf.is_layered else 1):
            if (leaf.path, layer) not in present:
                hint = _why_missing(leaf, layer > last, architecture, others)
                name = leaf.name(flavour, layer)
                raise errors.DataError(f"{label}: tensor {name} is missing", hint)


def _why_missing(
    leaf: layout.Leaf,
    is_beyond: bool,
    architecture: types.Architecture,
    others: Mapping[str, str],
) -> str:
    """What may explain that a leaf is not there, and what to do.

    Args:
        leaf: The leaf.
        is_beyond: Whether it belongs to a layer beyond the last that is there.
        architecture: What the checkpoint was to fit.
        others: Tasks -> names of the heads that are there.
    """
    if leaf.is_layered and is_beyond:
        return f"config.json says n_layer {architecture.n_layer}"
    if any(leaf.path in paths for paths in layout.BIASES.values()):
        return f"only all {' or all '.join(layout.BIASES)} together may have none"
    if leaf.path == "lm_head/weight" and others:
        task, name = next(iter(others.items()))
        return (
            f"config.json does not tie it to wte, and {name} is a head for {task}, which says "
            "nothing about tokens; use the model before it was given that head"
        )
    if leaf.path == "lm_head/weight":
        return 'if the head is the embedding, set "tie_word_embeddings": true in config.json'
    if leaf.path == "wte":
        return 'lm_head stands for it only if config.json has "tie_word_embeddings": true'
    return "fetch the model again"


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
