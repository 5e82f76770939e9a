"""Names, shapes and orientation of GPT-2's weights in each container: one table.

Three layouts name the same tensors: ours (stacked over layers, kernels ``[in, out]``), PyTorch's
(``h.0.attn.c_attn.weight``, also ``[in, out]``) and Flax's (``h/0/attn/c_attn/kernel``,
``[out, in]``). Nothing else in the project knows. Kernels may also be stored the other way round,
as ``torch.nn.Linear`` has them (nanoGPT); see ``stack`` for how that is recognised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from jaxlens import errors, types
from jaxlens.models.checkpoints import names

Flavour = Literal["torch", "flax"]

SEPARATOR: dict[str, str] = {"torch": ".", "flax": "/"}
EXAMPLE: dict[str, str] = {"torch": "h.0.attn.c_attn.weight", "flax": "h/0/attn/c_attn/kernel"}
"""A name of each, for messages."""

PREFIX = "transformer"
"""What models with a head put before every name but the head's; others are in ``names``."""

# Causal masks that old PyTorch checkpoints store as buffers.
_BUFFERS = ("attn.bias", "attn.masked_bias")
# Leading zeros would let two names mean one layer.
_LAYER = re.compile(r"h[./](0|[1-9][0-9]{0,5})[./](.+)")
_DEEPEST = 16


class Leaf(NamedTuple):
    """One leaf of the stacked pytree: its path, its name in each layout and its dimensions.

    ``dimensions`` has one letter each, see ``shape``; leaves under ``h`` add ``n_layer``.
    """

    path: str
    torch: str
    flax: str
    dimensions: str

    @property
    def is_layered(self) -> bool:
        """Whether each layer has one."""
        return self.path.startswith("h/")

    def name(self, flavour: Flavour, layer: int = 0) -> str:
        """Its name in a container, without the prefix."""
        own = self.torch if flavour == "torch" else self.flax
        return SEPARATOR[flavour].join(("h", str(layer), own)) if self.is_layered else own

    @property
    def is_kernel(self) -> bool:
        """Whether it is a matrix of a block, which checkpoints store either way round."""
        return self.is_layered and self.path.endswith("/kernel")

    def is_transposed(self, flavour: Flavour) -> bool:
        """Whether a container holds the transpose of ours, as transformers writes it."""
        return flavour == "flax" and self.flax.endswith("/kernel")

    def shape(self, architecture: types.Architecture) -> tuple[int, ...]:
        """Shape of one layer's, kernels ``[in, out]``."""
        sizes = {
            "V": architecture.vocab_size,
            "P": architecture.n_positions,
            "D": architecture.n_embd,
            "T": 3 * architecture.n_embd,
            "I": architecture.n_inner,
        }
        return tuple(sizes[letter] for letter in self.dimensions)

    def stacked_shape(self, architecture: types.Architecture) -> tuple[int, ...]:
        """Shape in the pytree."""
        layers = (architecture.n_layer,) if self.is_layered else ()
        return (*layers, *self.shape(architecture))


LEAVES: dict[str, Leaf] = {
    leaf.path: leaf
    for leaf in (
        Leaf("wte", "wte.weight", "wte/embedding", "VD"),
        Leaf("wpe", "wpe.weight", "wpe/embedding", "PD"),
        Leaf("h/ln_1/scale", "ln_1.weight", "ln_1/scale", "D"),
        Leaf("h/ln_1/bias", "ln_1.bias", "ln_1/bias", "D"),
        Leaf("h/attn/c_attn/kernel", "attn.c_attn.weight", "attn/c_attn/kernel", "DT"),
        Leaf("h/attn/c_attn/bias", "attn.c_attn.bias", "attn/c_attn/bias", "T"),
        Leaf("h/attn/c_proj/kernel", "attn.c_proj.weight", "attn/c_proj/kernel", "DD"),
        Leaf("h/attn/c_proj/bias", "attn.c_proj.bias", "attn/c_proj/bias", "D"),
        Leaf("h/ln_2/scale", "ln_2.weight", "ln_2/scale", "D"),
        Leaf("h/ln_2/bias", "ln_2.bias", "ln_2/bias", "D"),
        Leaf("h/mlp/c_fc/kernel", "mlp.c_fc.weight", "mlp/c_fc/kernel", "DI"),
        Leaf("h/mlp/c_fc/bias", "mlp.c_fc.bias", "mlp/c_fc/bias", "I"),
        Leaf("h/mlp/c_proj/kernel", "mlp.c_proj.weight", "mlp/c_proj/kernel", "ID"),
        Leaf("h/mlp/c_proj/bias", "mlp.c_proj.bias", "mlp/c_proj/bias", "D"),
        Leaf("ln_f/scale", "ln_f.weight", "ln_f/scale", "D"),
        Leaf("ln_f/bias", "ln_f.bias", "ln_f/bias", "D"),
        Leaf("lm_head/weight", "lm_head.weight", "lm_head/kernel", "VD"),
        Leaf("lm_head/bias", "lm_head.bias", "lm_head/bias", "V"),
    )
}

BIASES: dict[str, tuple[str, ...]] = {
    "linear layers": tuple(p for p in LEAVES if p.startswith("h/") and "/c_" in p and "bias" in p),
    "layer norms": tuple(path for path in LEAVES if "ln_" in path and path.endswith("/bias")),
}
"""Leaves that a checkpoint may leave out group by group, which means zeros (nanoGPT)."""

_BY_NAME = {
    **{("torch", leaf.is_layered, leaf.torch): leaf for leaf in LEAVES.values()},
    **{("flax", leaf.is_layered, leaf.flax): leaf for leaf in LEAVES.values()},
}


def find(name: str, flavour: Flavour) -> tuple[Leaf, int] | None:
    """Leaf and layer (0 outside of ``h``) that a name in a container means, if any."""
    name = names.bare(name, SEPARATOR[flavour])
    match = _LAYER.fullmatch(name) if name.startswith("h" + SEPARATOR[flavour]) else None
    leaf = _BY_NAME.get((flavour, match is not None, match[2] if match else name))
    return (leaf, int(match[1]) if match else 0) if leaf else None


def is_buffer(name: str, flavour: Flavour) -> bool:
    """Whether a name means something that checkpoints store but that is no weight."""
    match = _LAYER.fullmatch(names.bare(name, "."))
    return flavour == "torch" and match is not None and match[2] in _BUFFERS


def required(architecture: types.Architecture) -> Iterator[Leaf]:
    """Leaves that every checkpoint of an architecture has."""
    for path, leaf in LEAVES.items():
        is_untied = path == "lm_head/weight" and not architecture.tie_word_embeddings
        if is_untied or not path.startswith("lm_head/"):
            yield leaf


def count(architecture: types.Architecture, leaves: Iterable[Leaf]) -> int:
    """How many numbers some leaves have together."""
    return sum(math.prod(leaf.stacked_shape(architecture)) for leaf in leaves)


def flat(tree: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Nested mappings as one, keys joined by ``/``.

    Raises:
        DataError: Nested more deeply than any checkpoint.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            leaves[str(key)] = value
        elif depth == _DEEPEST:
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
