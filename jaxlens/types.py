"""The pytrees that flow between the stages, with their axis names.

Axes are named ``layer batch position embed head vocab`` throughout; ``layer`` counts the
residual streams, ``n_layer + 1`` of them, from the embedding to the last block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

Params = dict[str, Any]


@struct.dataclass
class Architecture:
    """Static description of a GPT-2 family model; hashable, so it can be a static argument."""

    n_layer: int = struct.field(pytree_node=False)
    n_head: int = struct.field(pytree_node=False)
    n_embd: int = struct.field(pytree_node=False)
    n_positions: int = struct.field(pytree_node=False)
    vocab_size: int = struct.field(pytree_node=False)
    n_inner: int = struct.field(pytree_node=False)
    activation_function: str = struct.field(pytree_node=False, default="gelu_new")
    layer_norm_epsilon: float = struct.field(pytree_node=False, default=1e-5)
    scale_attn_weights: bool = struct.field(pytree_node=False, default=True)
    scale_attn_by_inverse_layer_idx: bool = struct.field(pytree_node=False, default=False)
    tie_word_embeddings: bool = struct.field(pytree_node=False, default=True)
    bos_token_id: int | None = struct.field(pytree_node=False, default=None)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Labels of the residual streams: ``input``, ``h.0``, ..., ``h.{n_layer-1}``."""
        return ("input", *(f"h.{i}" for i in range(self.n_layer)))


@struct.dataclass
class Unembed:
    """What turns a residual into logits: ``normalise(h) @ weight.T + output_bias``.

    Attributes:
        kind: Decoder, one of ``lens.decoders.KINDS``.
        scale: Gain of the final layer norm.
        bias: Bias of the final layer norm.
        eps: Epsilon of the final layer norm.
        weight: Unembedding, one row a token.
        output_bias: Bias of the head, or None.
        embedding: Input embedding where it is not ``weight`` (untied heads); for ``retention``.
        temperature: What divides the logits of each layer in ``kl_final_matched``.
        n_layer: Blocks of the model, where they are known; residuals of another depth are refused.
    """

    kind: str = struct.field(pytree_node=False)
    scale: Float[Array, " embed"]
    bias: Float[Array, " embed"]
    eps: float = struct.field(pytree_node=False)
    weight: Float[Array, "vocab embed"]
    output_bias: Float[Array, " vocab"] | None = None
    embedding: Float[Array, "vocab embed"] | None = None
    temperature: Float[Array, " layer"] | None = None
    n_layer: int | None = struct.field(pytree_node=False, default=None)


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

    def present(self) -> dict[str, jax.Array]:
        """The quantities that were read, by name."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "labels"}

    def plot(
        self,
        metric: str | None = None,
        line: int | Sequence[int] | None = 0,
        path: str | Path | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        ax: Any = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
        wrap: int | None = None,
    ) -> Any:
        """Draws prompts of the batch: layers by tokens, the last layer on top.

        Below the cells stand the tokens that were read, above them the true next ones, with a star
        where the model's own best token is the next.

        Args:
            metric: What cells say, as for ``jaxlens show``: ``kl_final``, ``rank_next``, ...; also
                ``rank_follow`` and ``p_follow``, of several followed tokens ``rank_follow.1``, ....
                By default all views of the post that can be made of what was read, one below the
                other, and the rank of each followed token; of several prompts, or in ``ax``, the
                first of these. The first names the best tokens.
            line: Which prompt, negative from the end; several; or None for all. Padding is cut.
            path: File to write as well, its suffix the format: ``.png``, ``.svg``, ``.pdf``.
            start: First position to draw; negative from the end.
            stop: End of the positions, exclusive.
            ax: Axes of matplotlib to draw one prompt and one metric into.
            figsize: Width and height in inches; by default what the cells need.
            title: Above the figure, or above ``ax``.
            wrap: Most tokens side by side, 32 by default; longer prompts go on below.

        Returns:
            A ``matplotlib.figure.Figure`` that pyplot knows nothing of, which notebooks show; with
            ``ax`` the figure that it belongs to.

        Raises:
            ConfigError: The quantity was not read, there is no such line, the readout has no
                labels, there is too much for a figure, or matplotlib is not installed.
            StorageError: The file cannot be written.
        """
        from jaxlens.view.prompt import readouts

        look = {"ax": ax, "figsize": figsize, "title": title, "wrap": wrap}
        return readouts.plot(self, metric, line, path, start, stop, **look)

    def compare(
        self,
        other: Readout,
        line: int = 0,
        other_line: int | None = None,
        *,
        names: tuple[str, str] | None = None,
        relative_depth: bool = False,
    ) -> Any:
        """Compares one prompt with one of another readout: another prompt, model or decoder.

        Differences are this readout minus the other, where both have the same token: at the same
        position; in prompts of other lengths, counted from the beginning and from the end up to
        where they differ; with other tokenizers, where a token of each stands for the same part
        of the text. Layers are aligned by name.

        Args:
            other: The other readout; this one again to compare two of its own lines.
            line: Which prompt of this readout; negative from the end.
            other_line: Which prompt of the other; ``line`` by default.
            names: What to call the two, for titles; by default what differs between them.
            relative_depth: Align the layers of models of different depth by their relative depth.

        Returns:
            A `jaxlens.view.comparison.difference.Comparison`: ``difference(metric)`` has the numbers,
            ``plot()`` a figure, ``html()`` a page; notebooks show it.

        Raises:
            ConfigError: Models of different depth without ``relative_depth``, no token in common,
                tokenizers that cannot be compared, no such line, or a readout without labels.
        """
        from jaxlens.view.prompt import readouts

        lines = (line, line if other_line is None else other_line)
        return readouts.compare((self, other), lines, names, relative_depth)

    def to_pandas(self) -> Any:
        r"""Everything as a ``pandas.DataFrame``, one record a layer and real position.

        Columns are ``layer`` (0 is the input), ``layer_name``, ``batch``, ``position``,
        ``token_id``, ``token`` and the quantities that were read, named and numbered as in exports:
        ``top_id``, or of several ``top_id.1``, ``top_id.2``, .... Beside ids stand texts:
        ``top_token``, ``follow_id`` and ``follow_token``. Ids, ranks and ties are ``Int32``, texts
        ``string``, both ``<NA>`` where there is none; the rest float32 in nats, NaN where there is
        none. Bytes that are no UTF-8 stand as ``\xe2``.

        Raises:
            ConfigError: The readout has no labels, or pandas is not installed.
        """
        from jaxlens.view.prompt import dataframe

        return dataframe.of(self)

    def __repr__(self) -> str:
        from jaxlens.view.prompt import readouts

        return f"<Readout: {readouts.described(self)}>"

    def _repr_html_(self) -> str | None:
        """What notebooks show: the first prompts in colour; None, for the text, without labels."""
        from jaxlens.view.prompt import notebook

        return notebook.fragment(self)
