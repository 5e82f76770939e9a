"""What a checkpoint holds: which leaf each tensor is, and whether all of them are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from jaxlens import errors
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import checks, layout, names, variants
from jaxlens.models.checkpoints.stored_tensor import Tensor

Seen = dict[tuple[str, int], str]
"""Path of a leaf and layer -> name of the tensor."""


def placed(
    tensors: Iterable[Tensor],
    expected: layout.Layout,
    flavour: layout.Flavour,
    seen: Seen,
    others: dict[str, str],
) -> Iterator[tuple[Tensor, layout.Leaf, int]]:
    """The tensors that are weights, with the leaf and the layer of each.

    Args:
        tensors: All tensors of the checkpoint, in any order.
        expected: What they must fit.
        flavour: Whose names they have.
        seen: Their leaves, layers and names are added.
        others: Tasks of heads and inputs other than text are added, each with the name of a
            tensor that is for it and is not read.

    Raises:
        DataError: A tensor is unexpected or twice there.
    """
    for tensor in tensors:
        if expected.is_buffer(tensor.name, flavour):
            continue
        separator = layout.SEPARATOR[flavour]
        purpose = names.other_task(tensor.name, separator)
        purpose = purpose or names.other_input(tensor.name, separator)
        if purpose is not None:
            others.setdefault(purpose, untrusted.shown(tensor.name))
            continue
        leaf, layer = _leaf_of(tensor, expected, flavour)
        if (leaf.path, layer) in seen:
            raise errors.DataError(
                f"{tensor.file}: tensor {untrusted.shown(tensor.name)} is there twice, "
                f"also as {untrusted.shown(seen[leaf.path, layer])}",
                "leave one of the two out",
            )
        seen[leaf.path, layer] = tensor.name
        yield tensor, leaf, layer


def settle(
    stacks: dict[str, Any],
    seen: Seen,
    others: Mapping[str, str],
    expected: layout.Layout,
    flavour: layout.Flavour,
    label: str,
) -> list[str]:
    """Adds what a checkpoint may leave out, and refuses one that lacks anything else.

    Args:
        stacks: What there is of each leaf, by path; changed in place.
        seen: What `placed` added.
        others: Likewise.
        expected: What the checkpoint must fit.
        flavour: Whose names it has.
        label: What to call it.

    Returns:
        What was done, for the log.

    Raises:
        DataError: A tensor is missing.
    """
    notes = _ignored(others, stacks, expected)
    if variants.adopt_head(stacks, expected, notes):
        seen[expected.embedding, 0] = seen[expected.head, 0]
    added = variants.add_biases(stacks, expected, notes)
    present = {*seen, *((p, k) for p in added for k in range(expected.architecture.n_layer))}
    _require_all(present, expected, flavour, others, label)
    return notes


def _ignored(
    others: Mapping[str, str], stacks: Collection[str], expected: layout.Layout
) -> list[str]:
    """Notes on what is not read: heads of other tasks, and what reads other inputs than text."""
    tied = f"{expected.embedding}, which config.json ties to it"
    unembedding = checks.part_of(expected.head) if expected.head in stacks else tied
    inputs = names.OTHER_INPUTS.values()
    return [
        f"ignored {name} and all else that reads {purpose}: the text model alone is read"
        if purpose in inputs
        else f"ignored {name}, a head for {purpose}; the unembedding is {unembedding}"
        for purpose, name in others.items()
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
        others: What `placed` added.
    """
    head, embedding = checks.part_of(expected.head), expected.embedding
    heads = [(task, name) for task, name in others.items() if task in names.OTHER_HEADS.values()]
    if expected.is_layered(leaf) and is_beyond:
        return f"config.json says n_layer {expected.architecture.n_layer}"
    if any(leaf.path in paths for paths in expected.zeros.values()):
        return f"only all {' or all '.join(expected.zeros)} together may have none"
    if leaf.path == expected.head and heads:
        task, name = heads[0]
        return (
            f"config.json does not tie it to {embedding}, and {name} is a head for {task}, which "
            "says nothing about tokens; use the model before it was given that head"
        )
    if leaf.path == expected.head:
        return 'if the head is the embedding, set "tie_word_embeddings": true in config.json'
    if leaf.path == embedding:
        return f'{head} stands for it only if config.json has "tie_word_embeddings": true'
    return "fetch the model again"
