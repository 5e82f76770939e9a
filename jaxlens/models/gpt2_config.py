"""GPT-2's ``config.json``, and the names and shapes of its weights in checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlens import errors, types
from jaxlens.models import activations, config_json
from jaxlens.models.checkpoints import layout

# <|endoftext|>, which a file that leaves the key out means.
_DEFAULT_BOS = 50256

# Causal masks that old PyTorch checkpoints store as buffers.
_BUFFERS = ("attn.bias", "attn.masked_bias")


@dataclasses.dataclass(frozen=True)
class Options:
    """What GPT-2 has beside the sizes of every family.

    Attributes:
        n_head: Heads of attention; ``n_embd`` is a multiple.
        n_inner: Width of the hidden layer of the MLP.
        activation_function: One of ``activations.ACTIVATIONS``.
        layer_norm_epsilon: Of every layer norm.
        scale_attn_weights: Whether scores are divided by the square root of the head size.
        scale_attn_by_inverse_layer_idx: Whether scores are also divided by 1 + number of the block.
    """

    n_head: int
    n_inner: int
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False


def parse(config: Mapping[str, Any]) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Sizes must be there; options take GPT-2's defaults. A ``bos_token_id`` outside the vocabulary
    means that there is none.

    Raises:
        DataError: A key is missing, of the wrong type or out of bounds; the message names it.
    """
    n_embd, n_head = config_json.size(config, "n_embd"), config_json.size(config, "n_head")
    if n_embd % n_head:
        raise errors.DataError(
            f"config.json: n_embd {n_embd} is not a multiple of n_head {n_head}", config_json.MEND
        )
    vocab_size = config_json.vocab_size(config)
    has_positions = config.get("n_positions") is not None
    has_inner = config.get("n_inner") is not None
    return types.Architecture(
        model_type="gpt2",
        n_layer=config_json.size(config, "n_layer"),
        n_embd=n_embd,
        n_positions=config_json.size(config, "n_positions" if has_positions else "n_ctx"),
        vocab_size=vocab_size,
        tie_word_embeddings=config_json.flag(config, "tie_word_embeddings", True),
        bos_token_id=config_json.bos(config, vocab_size, _DEFAULT_BOS),
        options=Options(
            n_head=n_head,
            n_inner=config_json.size(config, "n_inner") if has_inner else 4 * n_embd,
            activation_function=config_json.choice(
                config, "activation_function", activations.ACTIVATIONS, "gelu_new"
            ),
            layer_norm_epsilon=config_json.epsilon(config, "layer_norm_epsilon"),
            scale_attn_weights=config_json.flag(config, "scale_attn_weights", True),
            scale_attn_by_inverse_layer_idx=config_json.flag(
                config, "scale_attn_by_inverse_layer_idx", False
            ),
        ),
    )


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face's ``GPT2Config`` both read."""
    options: Options = architecture.options
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": architecture.model_type,
        "n_layer": architecture.n_layer,
        "n_head": options.n_head,
        "n_embd": architecture.n_embd,
        "n_inner": options.n_inner,
        "n_positions": architecture.n_positions,
        "n_ctx": architecture.n_positions,
        "vocab_size": architecture.vocab_size,
        "activation_function": options.activation_function,
        "layer_norm_epsilon": options.layer_norm_epsilon,
        "scale_attn_weights": options.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": options.scale_attn_by_inverse_layer_idx,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": architecture.bos_token_id,
        # GPT-2 has one token for both; left out, readers would assume 50256.
        "eos_token_id": architecture.bos_token_id,
    }


def leaves(architecture: types.Architecture) -> layout.Layout:
    """The weights, as ``GPT2LMHeadModel`` and ``FlaxGPT2LMHeadModel`` name them.

    Kernels may be stored the other way round, as ``torch.nn.Linear`` has them (nanoGPT), and
    groups of biases may be left out.
    """
    blocks = tuple(_block(architecture.n_embd, architecture.options.n_inner))
    return layout.Layout(
        architecture=architecture,
        title="transformers' GPT-2",
        leaves=(*_embeddings(architecture), *blocks, *_head(architecture)),
        prefix="transformer",
        buffers=_BUFFERS,
        zeros={
            "linear layers": tuple(b.path for b in blocks if "/c_" in b.path and "bias" in b.path),
            "layer norms": (
                *(b.path for b in blocks if "/ln_" in b.path and "bias" in b.path),
                "ln_f/bias",
            ),
        },
        orientation_note=f"the activation is {architecture.options.activation_function}",
    )


def _embeddings(architecture: types.Architecture) -> Iterator[layout.Leaf]:
    vocab, embed = architecture.vocab_size, architecture.n_embd
    yield layout.Leaf("wte", "wte.weight", "wte/embedding", (vocab, embed), split=1)
    positions = (architecture.n_positions, embed)
    yield layout.Leaf("wpe", "wpe.weight", "wpe/embedding", positions, split=1)


def _head(architecture: types.Architecture) -> Iterator[layout.Leaf]:
    """Final norm and unembedding."""
    vocab, embed = architecture.vocab_size, architecture.n_embd
    yield from _norm("ln_f", "ln_f", embed)
    yield layout.Leaf(
        "lm_head/weight",
        "lm_head.weight",
        "lm_head/kernel",
        (vocab, embed),
        transposed_in=("flax",),
        is_optional=architecture.tie_word_embeddings,
        split=1,
    )
    yield layout.Leaf("lm_head/bias", "lm_head.bias", "lm_head/bias", (vocab,), is_optional=True)


def _block(embed: int, inner: int) -> Iterator[layout.Leaf]:
    """Leaves of one block.

    What reads the residual stream is split along its outputs, what adds to it along its inputs, so
    that devices which share the model exchange nothing but two sums a block.
    """
    yield from _norm("h/ln_1", "ln_1", embed)
    yield from _dense("attn", "c_attn", embed, 3 * embed, split=1, matrices=3)
    yield from _dense("attn", "c_proj", embed, embed, split=0)
    yield from _norm("h/ln_2", "ln_2", embed)
    yield from _dense("mlp", "c_fc", embed, inner, split=1)
    yield from _dense("mlp", "c_proj", inner, embed, split=0)


def _norm(path: str, name: str, embed: int) -> Iterator[layout.Leaf]:
    yield layout.Leaf(f"{path}/scale", f"{name}.weight", f"{name}/scale", (embed,))
    yield layout.Leaf(f"{path}/bias", f"{name}.bias", f"{name}/bias", (embed,))


def _dense(
    part: str, name: str, rows: int, columns: int, split: int, matrices: int = 1
) -> Iterator[layout.Leaf]:
    ours = f"{part}/{name}"
    yield layout.Leaf(
        f"h/{ours}/kernel",
        f"{part}.{name}.weight",
        f"{ours}/kernel",
        (rows, columns),
        transposed_in=("flax",),
        either_way=True,
        split=split,
        matrices=matrices,
    )
    yield layout.Leaf(
        f"h/{ours}/bias",
        f"{part}.{name}.bias",
        f"{ours}/bias",
        (columns,),
        split=0 if split == 1 else None,
        matrices=matrices,
    )
