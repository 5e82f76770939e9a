"""The pytrees that flow between the stages, with their axis names.

Axes are named ``layer batch position embed head vocab`` throughout; ``layer`` counts the
residual streams, ``n_layer + 1`` of them, from the embedding to the last block.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

Params = dict[str, Any]

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray | jax.ShapeDtypeStruct
"""Values on a device, values on the host, or their shape alone, from which programs are traced."""

_T = TypeVar("_T")


def _accepts_flat_options(cls: type[_T]) -> type[_T]:
    """Deprecated, to be removed in 0.3: GPT-2's options as arguments and attributes.

    Until there were other families, ``Architecture`` held them itself: ``Architecture(n_head=12,
    ...)``, with the arguments in ``_FLAT`` order, and ``architecture.n_head``.
    """
    create = cls.__init__

    def warn(name: str) -> None:
        warnings.warn(
            f"Architecture.{name} is deprecated: it is an option of the family, "
            f"Architecture.options.{name}",
            DeprecationWarning,
            stacklevel=3,
        )

    def init(self: Any, *args: Any, **fields: Any) -> None:
        fields |= dict(zip(_FLAT, args, strict=False))
        shared = {field.name for field in dataclasses.fields(self)}
        flat = {name: fields.pop(name) for name in tuple(fields) if name not in shared}
        if flat:
            warn(next(iter(flat)))
            base = fields.get("options")
            if base is None:
                config = importlib.import_module("jaxlens.models.gpt2_config")
                fields["options"] = config.Options(**flat)
            else:
                fields["options"] = dataclasses.replace(base, **flat)
        create(self, **fields)

    def getattr_(self: Any, name: str) -> Any:
        options = self.__dict__.get("options")
        if name.startswith("_") or not hasattr(options, name):
            raise AttributeError(f"Architecture has no attribute {name}")
        warn(name)
        return getattr(options, name)

    cls.__init__ = init  # type: ignore[method-assign]
    cls.__getattr__ = getattr_  # type: ignore[attr-defined]
    return cls


_FLAT = (
    *("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner"),
    *("activation_function", "layer_norm_epsilon", "scale_attn_weights"),
    *("scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "bos_token_id"),
)


@_accepts_flat_options
@struct.dataclass(kw_only=True)
class Architecture:
    """Static description of a model; hashable, so it can be a static argument.

    Attributes:
        n_layer: Blocks.
        n_embd: Width of the residual stream.
        n_positions: Longest sequence.
        vocab_size: Tokens.
        options: What the model's family has beside, a frozen dataclass that its module defines.
        tie_word_embeddings: Whether the unembedding is the token embedding.
        bos_token_id: Token before a text, if there is one.
        model_type: Family, see ``models.FAMILIES``.
    """

    n_layer: int = struct.field(pytree_node=False)
    n_embd: int = struct.field(pytree_node=False)
    n_positions: int = struct.field(pytree_node=False)
    vocab_size: int = struct.field(pytree_node=False)
    options: Any = struct.field(pytree_node=False)
    tie_word_embeddings: bool = struct.field(pytree_node=False, default=True)
    bos_token_id: int | None = struct.field(pytree_node=False, default=None)
    model_type: str = struct.field(pytree_node=False, default="gpt2")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Labels of the residual streams: ``input``, ``h.0``, ..., ``h.{n_layer-1}``."""
        return ("input", *(f"h.{i}" for i in range(self.n_layer)))

    def spec(self) -> dict[str, Any]:
        """What the spec of a run says of it: sizes and options on one level.

        The default ``model_type`` is left out, as in the specs of runs that began before there
        were families: a run is resumed only if its spec is the same to the byte.
        """
        fields = dataclasses.asdict(self)
        if self.model_type == Architecture.model_type:
            del fields["model_type"]
        # As JSON reads it back: a run is compared with its spec on disk.
        return json.loads(json.dumps({**fields.pop("options"), **fields}))


@struct.dataclass
class Unembed:
    """What turns a residual into logits: ``normalise(h) @ weight.T + output_bias``, maybe capped.

    Attributes:
        kind: Decoder, one of ``lens.decoders.DECODERS``.
        scale: Gain of the final norm.
        bias: Bias of the final norm, or None.
        eps: Epsilon of the final norm.
        weight: Unembedding, one row a token.
        output_bias: Bias of the head, or None.
        embedding: Input embedding where it is not ``weight`` (untied heads); for ``retention``.
        temperature: What divides the logits of each layer in ``kl_final_matched``.
        n_layer: Blocks of the model, where they are known; residuals of another depth are refused.
        norm: Final norm, one of ``lens.decoders.NORMS``.
        softcap: Logits z of every layer become ``softcap * tanh(z / softcap)``; None for none.
        embedding_scale: What the model multiplies its input embedding with.
    """

    kind: str = struct.field(pytree_node=False)
    scale: Float[Array, " embed"]
    bias: Float[Array, " embed"] | None
    eps: float = struct.field(pytree_node=False)
    weight: Float[Array, "vocab embed"]
    output_bias: Float[Array, " vocab"] | None = None
    embedding: Float[Array, "vocab embed"] | None = None
    temperature: Float[Array, " layer"] | None = None
    n_layer: int | None = struct.field(pytree_node=False, default=None)
    norm: str = struct.field(pytree_node=False, default="layer")
    softcap: float | None = struct.field(pytree_node=False, default=None)
    embedding_scale: float = struct.field(pytree_node=False, default=1.0)

    @property
    def token_embedding(self) -> Float[Array, "vocab embed"]:
        """The input embedding before it is scaled, whether or not the head is tied to it."""
        return self.weight if self.embedding is None else self.embedding


@struct.dataclass
class References:
    """The tokens that each position is compared with; -1 where there is none."""

    input: Int[Array, "batch position"]
    next: Int[Array, "batch position"]
    foreign: Int[Array, "batch position"]
    copy: Int[Array, "batch position"]
    mask: Bool[Array, "batch position"]
    follow: Int[Array, "batch position m"] | None = None


@struct.dataclass
class Step:
    """One fixed-shape stack of sequences, run whole on one device.

    Attributes:
        tokens: Token ids; 0 in the padding.
        positions: Index that ``wpe`` sees; restarts with every document window.
        segments: Number of the window inside its sequence, from 1; 0 in the padding.
        references: Tokens to compare with.
        order: Flat index ``batch * length + position`` of each recorded row, in token-file
            order; padded with 0 to the capacity of the step.
        count: How many entries of ``order`` are real.
    """

    tokens: Int[Array, "batch position"]
    positions: Int[Array, "batch position"]
    segments: Int[Array, "batch position"]
    references: References
    order: Int[Array, " row"]
    count: Int[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """What a readout is of, for whoever looks at it.

    They ride beside the arrays and are no part of the tree: any two are equal, so that readouts of
    different prompts have one structure, and no function is compiled again for another prompt.

    Attributes:
        references: Tokens that were read (``input``), what they were compared with, and which are
            real, as NumPy arrays; None where nobody knows.
        layers: Numbers of the residual streams that are reported, in their order.
        streams: How many the model has.
        decoder: See ``Unembed.kind``.
        vocab_size: Tokens of the vocabulary.
        spell: Gives the bytes of some tokens; None without a tokenizer.
    """

    references: References | None = dataclasses.field(default=None, repr=False)
    layers: tuple[int, ...] = ()
    streams: int = 0
    decoder: str = ""
    vocab_size: int = 0
    spell: Callable[[Iterable[int]], Mapping[int, bytes]] | None = dataclasses.field(
        default=None, repr=False
    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels)

    def __hash__(self) -> int:
        return hash(Labels)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the reported residual streams, as ``Architecture.layer_names`` has them."""
        return tuple(f"h.{layer - 1}" if layer else "input" for layer in self.layers)


@struct.dataclass
class Readout:
    """What the lens reads at each layer, batch line and position; None where not asked for.

    Fields are the quantities of ``schema.QUANTITIES``. Ranks and ids are int32 (0 and -1 where
    masked), the rest float32 (NaN where masked). All have axes ``layer batch position``;
    ``top_id`` and ``top_logp`` add ``k``; ``rank_follow`` and ``logp_follow`` add ``m``.

    ``labels`` say of which tokens and layers. They outlive ``jax.tree.map``. Inside a compiled
    function there are none, and so what comes out of one has none: a program that is compiled once
    serves every prompt, and would give each the labels of the first. ``replace`` puts them back.
    """

    rank_input: jax.Array | None = None
    rank_next: jax.Array | None = None
    rank_final: jax.Array | None = None
    rank_foreign: jax.Array | None = None
    rank_copy: jax.Array | None = None
    ties_input: jax.Array | None = None
    ties_next: jax.Array | None = None
    ties_final: jax.Array | None = None
    ties_foreign: jax.Array | None = None
    ties_copy: jax.Array | None = None
    logp_input: jax.Array | None = None
    logp_next: jax.Array | None = None
    logp_final: jax.Array | None = None
    kl_final: jax.Array | None = None
    kl_input: jax.Array | None = None
    kl_to_final: jax.Array | None = None
    kl_to_input: jax.Array | None = None
    kl_final_matched: jax.Array | None = None
    js_final: jax.Array | None = None
    js_input: jax.Array | None = None
    entropy: jax.Array | None = None
    top_id: jax.Array | None = None
    top_logp: jax.Array | None = None
    norm: jax.Array | None = None
    retention: jax.Array | None = None
    retention_foreign: jax.Array | None = None
    rank_follow: jax.Array | None = None
    logp_follow: jax.Array | None = None

    labels: Labels = struct.field(pytree_node=False, default=Labels())

    def __post_init__(self) -> None:
        if any(isinstance(value, jax.core.Tracer) for value in vars(self).values()):
            object.__setattr__(self, "labels", Labels())

    @property
    def top_p(self) -> jax.Array | None:
        """Probabilities of the best tokens, ``exp(top_logp)``; None where that was not read."""
        return None if self.top_logp is None else jnp.exp(self.top_logp)

    def present(self) -> dict[str, Array]:
        """The quantities that were read, by name."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "labels"}
