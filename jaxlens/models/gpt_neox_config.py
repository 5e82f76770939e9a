"""``config.json`` of GPT-NeoX, of which Pythia is one, and the names and shapes of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlens import errors, types
from jaxlens.models import activations, block_leaves, config_json, rotary
from jaxlens.models.checkpoints import layout

# <|endoftext|> of GPT-NeoX-20B and Pythia, which a file that leaves the key out means.
_DEFAULT_BOS = 0

_DEFAULT_ROTARY_PCT = 0.25

# Causal masks and rotary frequencies that old PyTorch checkpoints store as buffers.
_BUFFERS = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")


@dataclasses.dataclass(frozen=True)
class Options:
    """What GPT-NeoX has beside the sizes of every family.

    Attributes:
        n_head: Heads of attention; ``n_embd`` is a multiple.
        n_inner: Width of the hidden layer of the MLP.
        activation_function: One of ``activations.ACTIVATIONS``.
        layer_norm_eps: Of every layer norm.
        rope: Rotary frequencies.
        rotary_pct: Share of each head that positions rotate, from its first entry on.
        attention_bias: Whether the layers of attention have a bias.
        use_parallel_residual: Whether attention and MLP both read the stream before the block.
    """

    n_head: int
    n_inner: int
    activation_function: str = "gelu"
    layer_norm_eps: float = 1e-5
    rope: rotary.Rope = dataclasses.field(default_factory=rotary.Rope)
    rotary_pct: float = _DEFAULT_ROTARY_PCT
    attention_bias: bool = True
    use_parallel_residual: bool = True


def parse(config: Mapping[str, Any]) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Sizes must be there; options take the defaults of transformers.

    Raises:
        DataError: A key is missing, of the wrong type, out of bounds or asks for something that
            is not computed here; the message names it.
    """
    n_embd = config_json.size(config, "hidden_size")
    n_head = config_json.size(config, "num_attention_heads")
    if n_embd % n_head:
        raise errors.DataError(
            f"config.json: hidden_size {n_embd} is not a multiple of num_attention_heads {n_head}",
            config_json.MEND,
        )
    vocab_size = config_json.vocab_size(config)
    rope, rotary_pct = _rotary(config, n_embd // n_head)
    return types.Architecture(
        model_type="gpt_neox",
        n_layer=config_json.size(config, "num_hidden_layers"),
        n_embd=n_embd,
        n_positions=config_json.size(config, "max_position_embeddings"),
        vocab_size=vocab_size,
        tie_word_embeddings=config_json.flag(config, "tie_word_embeddings", False),
        bos_token_id=config_json.bos(config, vocab_size, _DEFAULT_BOS),
        options=Options(
            n_head=n_head,
            n_inner=config_json.size(config, "intermediate_size"),
            activation_function=config_json.choice(
                config, "hidden_act", activations.ACTIVATIONS, "gelu"
            ),
            layer_norm_eps=config_json.epsilon(config, "layer_norm_eps"),
            rope=rope,
            rotary_pct=rotary_pct,
            attention_bias=config_json.flag(config, "attention_bias", True),
            use_parallel_residual=config_json.flag(config, "use_parallel_residual", True),
        ),
    )


def _rotary(config: Mapping[str, Any], head_size: int) -> tuple[rotary.Rope, float]:
    """Frequencies and the share of a head that they turn, by their old names or those of 2025."""
    base = config.get("rotary_emb_base")
    rope = rotary.parse(config if base is None else {**config, "rope_theta": base})
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    listed = (
        ("partial_rotary_factor", nested),
        ("rotary_pct", config),
        ("partial_rotary_factor", config),
    )
    key, found = next((pair for pair in listed if pair[1].get(pair[0]) is not None), listed[1])
    share = config_json.number(found, key, _DEFAULT_ROTARY_PCT, 0.0, 1.0)
    if rotated(head_size, share) % 2:
        raise errors.DataError(
            f"config.json: {key} {share:g} turns {rotated(head_size, share)} of {head_size} "
            "entries of a head, an odd number, and rotary positions turn pairs",
            config_json.MEND,
        )
    return rope, share


def rotated(head_size: int, share: float) -> int:
    """Entries of a head that positions turn."""
    return int(head_size * share)


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face both read."""
    options: Options = architecture.options
    rope = rotary.dump(options.rope)
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": architecture.model_type,
        "num_hidden_layers": architecture.n_layer,
        "hidden_size": architecture.n_embd,
        "max_position_embeddings": architecture.n_positions,
        "vocab_size": architecture.vocab_size,
        "num_attention_heads": options.n_head,
        "intermediate_size": options.n_inner,
        "hidden_act": options.activation_function,
        "layer_norm_eps": options.layer_norm_eps,
        "rotary_emb_base": rope["rope_theta"],
        "rotary_pct": options.rotary_pct,
        "rope_scaling": rope["rope_scaling"],
        "attention_bias": options.attention_bias,
        "use_parallel_residual": options.use_parallel_residual,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": architecture.bos_token_id,
        # One token for both, as in GPT-2; left out, readers would assume 2.
        "eos_token_id": architecture.bos_token_id,
    }


def leaves(architecture: types.Architecture) -> layout.Layout:
    """The weights, as ``GPTNeoXForCausalLM`` names them; in Flax's layout likewise."""
    vocab, embed = architecture.vocab_size, architecture.n_embd
    return layout.Layout(
        architecture=architecture,
        title="transformers' GPTNeoXForCausalLM",
        leaves=(
            layout.Leaf("wte", "embed_in.weight", "embed_in/embedding", (vocab, embed), split=1),
            *_block(embed, architecture.options),
            *_norm("final_layer_norm", "final_layer_norm", embed),
            layout.Leaf(
                "lm_head/weight",
                "embed_out.weight",
                "embed_out/kernel",
                (vocab, embed),
                transposed_in=("flax",),
                is_optional=architecture.tie_word_embeddings,
                split=1,
            ),
        ),
        prefix="gpt_neox",
        blocks="layers",
        buffers=_BUFFERS,
        aliases={"lm_head.weight": "embed_out.weight"},  # of models in memory since 2026
    )


def _block(embed: int, options: Options) -> Iterator[layout.Leaf]:
    """Leaves of one block, split over devices as GPT-2's are.

    Query, key and value are packed head by head, so a share of their columns is heads that are
    whole.
    """
    inner, has_bias = options.n_inner, options.attention_bias
    yield from _norm("layers/input_layernorm", "input_layernorm", embed)
    yield from block_leaves.dense("attention/query_key_value", embed, 3 * embed, 1, has_bias)
    yield from block_leaves.dense("attention/dense", embed, embed, 0, has_bias)
    yield from _norm("layers/post_attention_layernorm", "post_attention_layernorm", embed)
    yield from block_leaves.dense("mlp/dense_h_to_4h", embed, inner, 1)
    yield from block_leaves.dense("mlp/dense_4h_to_h", inner, embed, 0)


def _norm(path: str, name: str, embed: int) -> Iterator[layout.Leaf]:
    yield layout.Leaf(f"{path}/scale", f"{name}.weight", f"{name}/scale", (embed,))
    yield layout.Leaf(f"{path}/bias", f"{name}.bias", f"{name}/bias", (embed,))
