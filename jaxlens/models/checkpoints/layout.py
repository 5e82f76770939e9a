"""Names, shapes and orientation of a model's weights in each kind of checkpoint.

Three layouts name the same tensors: ours (stacked over layers, kernels ``[in, out]``), PyTorch's
and Flax's. Each family describes its own with one ``Layout``; what reads and writes checkpoints
knows nothing else of a family.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jaxlens import errors, types
from jaxlens.models.checkpoints import names

Flavour = Literal["torch", "flax"]

FLAVOURS: tuple[Flavour, ...] = ("torch", "flax")
SEPARATOR: dict[str, str] = {"torch": ".", "flax": "/"}

_MAX_DEPTH = 16


class Leaf(NamedTuple):
    """One leaf of the stacked pytree.

    Attributes:
        path: In our pytree; leaves of blocks start with ``Layout.blocks``.
        torch: Name in PyTorch's layout, of a block's leaf without the block.
        flax: Name in Flax's layout, likewise.
        shape: Of one block's, kernels ``[in, out]``.
        transposed_in: Layouts that hold the transpose of ours, as transformers writes it.
        either_way: Whether checkpoints store it either way round, see ``variants``.
        is_optional: Whether a checkpoint may lack it.
        split: Axis that devices which share the model split; None where each has all of it.
        matrices: How many matrices stand side by side along that axis, each of which is split.
    """

    path: str
    torch: str
    flax: str
    shape: tuple[int, ...]
    transposed_in: tuple[Flavour, ...] = ()
    either_way: bool = False
    is_optional: bool = False
    split: int | None = None
    matrices: int = 1

    @property
    def is_square(self) -> bool:
        """Whether the shape cannot tell how a kernel is stored."""
        return len(self.shape) == 2 and self.shape[0] == self.shape[1]


@dataclass(frozen=True)
class Layout:
    """The weights of an architecture.

    Attributes:
        architecture: Sizes.
        title: Whose names they are, for messages.
        leaves: All leaves, in the order in which a missing one is reported.
        prefix: What models with a head put before every name but the head's.
        blocks: First part of the name of each leaf of a block, before its number.
        embedding: Path of the token embedding.
        head: Path of the unembedding.
        aliases: Further names in PyTorch's layout outside of the blocks, and what they stand for.
        buffers: Names within a block that PyTorch checkpoints store and that are not weights.
        zeros: Paths that a checkpoint may leave out group by group, which means zeros.
        orientation_note: What users should check where kernels are stored the other way round.
    """

    architecture: types.Architecture
    title: str
    leaves: tuple[Leaf, ...]
    prefix: str
    blocks: str = "h"
    embedding: str = "wte"
    head: str = "lm_head/weight"
    aliases: Mapping[str, str] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    zeros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    orientation_note: str = ""

    @functools.cached_property
    def by_path(self) -> dict[str, Leaf]:
        """Leaves by their path."""
        return {leaf.path: leaf for leaf in self.leaves}

    @functools.cached_property
    def _by_name(self) -> dict[tuple[str, bool, str], Leaf]:
        return {
            (flavour, self.is_layered(leaf), getattr(leaf, flavour)): leaf
            for flavour in FLAVOURS
            for leaf in self.leaves
        }

    def is_layered(self, leaf: Leaf) -> bool:
        """Whether each block has one."""
        return leaf.path.startswith(f"{self.blocks}/")

    def copies(self, leaf: Leaf) -> int:
        """How many a checkpoint holds."""
        return self.architecture.n_layer if self.is_layered(leaf) else 1

    def stacked_shape(self, leaf: Leaf) -> tuple[int, ...]:
        """Shape in the pytree."""
        layers = (self.architecture.n_layer,) if self.is_layered(leaf) else ()
        return (*layers, *leaf.shape)

    def name(self, leaf: Leaf, flavour: Flavour, layer: int = 0) -> str:
        """Name of a leaf in a checkpoint, without the prefix."""
        own = getattr(leaf, flavour)
        parts = (self.blocks, str(layer), own) if self.is_layered(leaf) else (own,)
        return SEPARATOR[flavour].join(parts)

    def full_name(self, leaf: Leaf, flavour: Flavour, layer: int = 0) -> str:
        """Name of a leaf in a checkpoint of a model with a head."""
        name = self.name(leaf, flavour, layer)
        is_of_head = leaf.path.split("/")[0] == self.head.split("/")[0]
        return name if is_of_head else self.prefix + SEPARATOR[flavour] + name

    def example(self, flavour: Flavour) -> str:
        """Name of a kernel, for messages."""
        kernel = next((leaf for leaf in self.leaves if leaf.either_way), self.leaves[-1])
        return self.name(kernel, flavour)

    def find(self, name: str, flavour: Flavour) -> tuple[Leaf, int] | None:
        """Leaf and layer (0 outside of the blocks) that a name in a checkpoint means, if any."""
        layer, own = self._split(names.bare(name, SEPARATOR[flavour]), flavour)
        if layer is None and flavour == "torch":
            own = self.aliases.get(own, own)
        leaf = self._by_name.get((flavour, layer is not None, own))
        return (leaf, layer or 0) if leaf else None

    def is_buffer(self, name: str, flavour: Flavour) -> bool:
        """Whether a name means something that checkpoints store but that is not a weight."""
        layer, own = self._split(names.bare(name, "."), "torch")
        return flavour == "torch" and layer is not None and own in self.buffers

    def required(self) -> Iterator[Leaf]:
        """Leaves that every checkpoint has."""
        return (leaf for leaf in self.leaves if not leaf.is_optional)

    def count(self, *, with_optional: bool = True) -> int:
        """How many numbers the leaves have together."""
        leaves = self.leaves if with_optional else self.required()
        return sum(math.prod(self.stacked_shape(leaf)) for leaf in leaves)

    def _split(self, name: str, flavour: Flavour) -> tuple[int | None, str]:
        """Number of the block, None outside of them, and the name within it."""
        cut = re.escape(SEPARATOR[flavour])
        # Leading zeros would let two names mean one layer.
        match = re.fullmatch(rf"{re.escape(self.blocks)}{cut}(0|[1-9][0-9]{{0,5}}){cut}(.+)", name)
        return (int(match[1]), match[2]) if match else (None, name)


def flat(tree: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Nested mappings as one, keys joined by ``/``.

    Raises:
        DataError: Nested more deeply than any checkpoint.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            leaves[str(key)] = value
        elif depth == _MAX_DEPTH:
            raise errors.DataError(
                f"weights are nested too deeply at {str(key)[:80]!r}",
                "give the parameters of the model, and not what holds them",
            )
        else:
            leaves.update({f"{key}/{below}": v for below, v in flat(value, depth + 1).items()})
    return leaves


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flat``."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
