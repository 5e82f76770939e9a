"""Model families: the registry, and the functions that choose a family by ``model_type``.

A family is one module with the functions of ``Family``. To add one, write the module and add its
line to ``FAMILIES``; no code outside this folder names a family.

Families are imported on first use: the command line imports this package before it needs JAX.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from jaxlens import errors
from jaxlens.models import config_json

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from jaxlens import types
    from jaxlens.models import patches
    from jaxlens.models.checkpoints import gguf_config, layout

FAMILIES: dict[str, str] = {
    "gpt2": "jaxlens.models.gpt2",
    "gpt_neox": "jaxlens.models.gpt_neox",
    "llama": "jaxlens.models.llama",
    "mistral": "jaxlens.models.llama",
    "olmo2": "jaxlens.models.olmo2",
    "qwen2": "jaxlens.models.llama",
    "qwen3": "jaxlens.models.llama",
    "gemma": "jaxlens.models.gemma",
    "gemma2": "jaxlens.models.gemma",
    "gemma3": "jaxlens.models.gemma",
    "gemma3_text": "jaxlens.models.gemma",
}
"""``model_type`` of a ``config.json`` -> module of the family."""


class Family(Protocol):
    """What the module of a family provides."""

    TITLE: str
    """Name of the family in messages."""

    def parse(self, config: Mapping[str, Any]) -> types.Architecture:
        """The architecture that a decoded ``config.json`` of this family describes."""
        ...

    def dump(self, architecture: types.Architecture) -> dict[str, Any]:
        """A ``config.json`` that ``parse`` and Hugging Face read."""
        ...

    def leaves(self, architecture: types.Architecture) -> layout.Layout:
        """Names, shapes and orientation of the weights in each kind of checkpoint."""
        ...

    def init(self, architecture: types.Architecture, seed: int) -> types.Params:
        """Fresh weights: a float32 NumPy pytree with the paths of ``leaves``."""
        ...

    def residuals(
        self,
        params: types.Params,
        architecture: types.Architecture,
        tokens: Int[Array, "batch position"],
        positions: Int[Array, "batch position"] | None = None,
        segments: Int[Array, "batch position"] | None = None,
        *,
        dtype: str = "float32",
        patch: patches.Patch | None = None,
    ) -> Float[Array, "layer batch position embed"]:
        """Every residual stream, see ``models.residuals``."""
        ...

    def unembed(
        self, params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
    ) -> types.Unembed:
        """Final norm and head, see ``models.unembed``."""
        ...

    def forward_flops(self, architecture: types.Architecture, length: int) -> float:
        """Operations a token, see ``models.forward_flops``."""
        ...


def require(model_type: str) -> None:
    """Refuses an architecture that no family computes.

    Raises:
        DataError: Naming the architecture.
    """
    if model_type not in FAMILIES:
        raise errors.DataError(
            f"architecture {model_type[:80]!r} is not supported",
            f"supported model types: {', '.join(FAMILIES)}",
        )


def family(model_type: str) -> Family:
    """The module that computes an architecture, imported on first use.

    Raises:
        DataError: The architecture is not supported.
    """
    require(model_type)
    return cast("Family", importlib.import_module(FAMILIES[model_type]))


def parse(config: Any) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Args:
        config: The decoded file, nanoGPT's ``model_args``, or an object of either library
            (``GPT2Config``, a dataclass).

    Raises:
        DataError: A key is missing, of the wrong type, out of bounds or asks for something that
            is not supported; the message names it.
    """
    config = config_json.mapping(config)
    model_type = config_json.model_type(config, FAMILIES)
    require(model_type)
    config_json.refuse_unsupported(config)
    return family(model_type).parse(config)


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face read as this architecture."""
    return family(architecture.model_type).dump(architecture)


def leaves(architecture: types.Architecture) -> layout.Layout:
    """Names, shapes and orientation of an architecture's weights in each kind of checkpoint."""
    return family(architecture.model_type).leaves(architecture)


def title(architecture: types.Architecture) -> str:
    """Name of the family in messages, such as ``GPT-2``."""
    return family(architecture.model_type).TITLE


def gguf_names() -> dict[str, gguf_config.Names]:
    """Architectures of llama.cpp that a family reads -> what their GGUF files call its weights.

    A family that has such files gives them in its ``GGUF``, a mapping like this one.
    """
    modules = map(importlib.import_module, dict.fromkeys(FAMILIES.values()))
    found: dict[str, gguf_config.Names] = {}
    for module in modules:
        found |= getattr(module, "GGUF", {})
    return found


def init(architecture: types.Architecture, seed: int) -> types.Params:
    """Fresh weights, as the family was initialised for training.

    Args:
        architecture: Sizes.
        seed: Seed of the NumPy generator; the same seed and NumPy give the same bits.

    Returns:
        Float32 NumPy pytree.
    """
    return family(architecture.model_type).init(architecture, seed)


def residuals(
    params: types.Params,
    architecture: types.Architecture,
    tokens: Int[Array, "batch position"],
    positions: Int[Array, "batch position"] | None = None,
    segments: Int[Array, "batch position"] | None = None,
    *,
    dtype: str = "float32",
    patch: patches.Patch | None = None,
) -> Float[Array, "layer batch position embed"]:
    """Every residual stream: the embedding and the output of each block, before the final norm.

    Args:
        params: Parameters; their type is the type of the matrix multiplies' operands, while
            the residual stream itself is float32.
        architecture: Sizes and options.
        tokens: Token ids.
        positions: Position of each token; 0, 1, 2, ... in each sequence by default.
        segments: Tokens attend only within their own segment; one segment by default.
        dtype: Type of what is returned; the blocks hand on float32 among themselves.
        patch: Applied to every stream before it is returned and handed on, see
            ``models.patches``; without it nothing is computed for it.

    Returns:
        ``layer`` counts ``n_layer + 1``.
    """
    compute = family(architecture.model_type).residuals
    return compute(params, architecture, tokens, positions, segments, dtype=dtype, patch=patch)


def unembed(
    params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
) -> types.Unembed:
    """The model's own final norm and head, with the decoder ``kind`` for the other layers."""
    return family(architecture.model_type).unembed(params, architecture, kind)


def softcap(architecture: types.Architecture) -> float | None:
    """Cap of the logits, see ``types.Unembed``; an option of the families that have one."""
    return getattr(architecture.options, "final_softcap", None)


def forward_flops(architecture: types.Architecture, length: int) -> float:
    """Operations of the blocks' multiplies a token, in sequences of ``length`` tokens."""
    return family(architecture.model_type).forward_flops(architecture, length)
