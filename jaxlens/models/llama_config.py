"""``config.json`` of Llama, Mistral, Qwen 2 and Qwen 3, and the names and shapes of their weights.

They are one block with options: biases of the query, key and value (Qwen 2), norms of query and key
(Qwen 3), windows of attention (Mistral), rescaled rotary frequencies (Llama 3.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxlens import errors, types
from jaxlens.models import activations, block_leaves, config_json, rotary
from jaxlens.models.checkpoints import layout

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

# What files that leave bos_token_id out mean.
_DEFAULT_BOS = {"llama": 1, "mistral": 1}

# Head size that Qwen 3 has whatever its width; the others divide their width by the heads.
_DEFAULT_HEAD_SIZE = {"qwen3": 128}

# Rotary frequencies that old PyTorch checkpoints store as buffers.
_BUFFERS = ("self_attn.rotary_emb.inv_freq",)


@dataclasses.dataclass(frozen=True)
class Options:
    """What these models have beside the sizes of every family.

    Attributes:
        n_head: Heads of queries.
        n_kv_head: Heads of keys and values; ``n_head`` is a multiple.
        head_size: Entries of a head.
        n_inner: Width of the hidden layer of the gated MLP.
        activation_function: Of the gate, one of ``activations.ACTIVATIONS``.
        rms_norm_eps: Of every norm.
        rope: Rotary frequencies.
        qkv_bias: Whether query, key and value have a bias.
        output_bias: Whether the output of attention has one.
        mlp_bias: Whether the layers of the MLP have one.
        norms_heads: Whether queries and keys are normalised head by head.
        windows: Positions that each block attends to, 0 for all; empty where all attend to all.
    """

    n_head: int
    n_kv_head: int
    head_size: int
    n_inner: int
    activation_function: str = "silu"
    rms_norm_eps: float = 1e-6
    rope: rotary.Rope = dataclasses.field(default_factory=rotary.Rope)
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    norms_heads: bool = False
    windows: tuple[int, ...] = ()


def parse(config: Mapping[str, Any]) -> types.Architecture:
    """The architecture that a ``config.json`` describes.

    Sizes must be there; options take the defaults of transformers.

    Raises:
        DataError: A key is missing, of the wrong type, out of bounds or asks for something that
            is not computed here; the message names it.
    """
    model_type = config["model_type"]
    n_layer = config_json.size(config, "num_hidden_layers")
    n_embd = config_json.size(config, "hidden_size")
    vocab_size = config_json.vocab_size(config)
    has_bias = config_json.flag(config, "attention_bias", False)
    n_head, n_kv_head, head_size = heads(config, n_embd, _DEFAULT_HEAD_SIZE.get(model_type))
    default_bos = _DEFAULT_BOS.get(model_type)
    return types.Architecture(
        n_layer=n_layer,
        n_embd=n_embd,
        n_positions=config_json.size(config, "max_position_embeddings"),
        vocab_size=vocab_size,
        tie_word_embeddings=config_json.flag(config, "tie_word_embeddings", False),
        bos_token_id=config_json.bos(config, vocab_size, default_bos),
        model_type=model_type,
        options=Options(
            n_head=n_head,
            n_kv_head=n_kv_head,
            head_size=head_size,
            n_inner=config_json.size(config, "intermediate_size"),
            activation_function=config_json.choice(
                config, "hidden_act", activations.ACTIVATIONS, "silu"
            ),
            rms_norm_eps=config_json.epsilon(config, "rms_norm_eps", 1e-6),
            rope=rotary.parse(config),
            qkv_bias=model_type == "qwen2" or (model_type != "mistral" and has_bias),
            output_bias=model_type in ("llama", "qwen3") and has_bias,
            mlp_bias=model_type == "llama" and config_json.flag(config, "mlp_bias", False),
            norms_heads=model_type == "qwen3",
            windows=_windows(config, model_type, n_layer),
        ),
    )


def heads(config: Mapping[str, Any], n_embd: int, default: int | None) -> tuple[int, int, int]:
    """Heads of queries, those of keys, and their size.

    Args:
        config: Decoded ``config.json``.
        n_embd: Width of the residual stream.
        default: Size of a head where the file does not say it; None for ``n_embd / n_head``.

    Raises:
        DataError: They do not fit each other, or cannot be turned in pairs.
    """
    n_head = config_json.size(config, "num_attention_heads")
    has_groups = config.get("num_key_value_heads") is not None
    n_kv_head = config_json.size(config, "num_key_value_heads") if has_groups else n_head
    if n_head % n_kv_head:
        raise errors.DataError(
            f"config.json: num_attention_heads {n_head} is not a multiple of "
            f"num_key_value_heads {n_kv_head}",
            config_json.MEND,
        )
    if config.get("head_dim") is not None:
        head_size = config_json.size(config, "head_dim")
    else:
        head_size = default or n_embd // n_head
        if default is None and n_embd % n_head:
            raise errors.DataError(
                f"config.json: hidden_size {n_embd} is not a multiple of "
                f"num_attention_heads {n_head}, and head_dim is missing",
                config_json.MEND,
            )
    if head_size % 2:
        raise errors.DataError(
            f"config.json: head_dim {head_size} is odd, rotary positions turn pairs",
            config_json.MEND,
        )
    return n_head, n_kv_head, head_size


def _windows(config: Mapping[str, Any], model_type: str, n_layer: int) -> tuple[int, ...]:
    """Windows of the blocks: of all (Mistral), of the later ones (Qwen), or as ``layer_types``."""
    if model_type == "llama" or config.get("sliding_window") is None:
        return ()
    if model_type != "mistral" and not config_json.flag(config, "use_sliding_window", False):
        return ()
    window = config_json.size(config, "sliding_window")
    if config.get("layer_types") is None:
        first = 0 if model_type == "mistral" else config.get("max_window_layers", 28)
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise errors.DataError(
                "config.json: max_window_layers must be a whole number", config_json.MEND
            )
        windows = tuple(window if layer >= first else 0 for layer in range(n_layer))
        return windows if any(windows) else ()
    windows = tuple(window if local else 0 for local in config_json.is_local(config, n_layer))
    return windows if any(windows) else ()


def dump(architecture: types.Architecture) -> dict[str, Any]:
    """A ``config.json`` that ``parse`` and Hugging Face both read."""
    options: Options = architecture.options
    kind = architecture.model_type
    config: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "num_hidden_layers": architecture.n_layer,
        "hidden_size": architecture.n_embd,
        "max_position_embeddings": architecture.n_positions,
        "vocab_size": architecture.vocab_size,
        "num_attention_heads": options.n_head,
        "num_key_value_heads": options.n_kv_head,
        "head_dim": options.head_size,
        "intermediate_size": options.n_inner,
        "hidden_act": options.activation_function,
        "rms_norm_eps": options.rms_norm_eps,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "bos_token_id": architecture.bos_token_id,
        **rotary.dump(options.rope),
    }
    if kind in ("llama", "qwen3"):
        config["attention_bias"] = options.output_bias
    if kind == "llama":
        config["mlp_bias"] = options.mlp_bias
    else:
        config["sliding_window"] = max(options.windows, default=0) or None
    if kind != "llama" and options.windows:
        config["use_sliding_window"] = True
        config["layer_types"] = [config_json.LAYER_TYPES[window > 0] for window in options.windows]
    return config


def leaves(architecture: types.Architecture) -> layout.Layout:
    """The weights, as ``LlamaForCausalLM`` and ``FlaxLlamaForCausalLM`` name them."""
    block = _block(architecture.n_embd, architecture.options)
    return around(architecture, _CLASSES[architecture.model_type], block)


def around(
    architecture: types.Architecture, name: str, block: Iterable[layout.Leaf]
) -> layout.Layout:
    """The weights of a model with an embedding, blocks, a final gain and a head.

    Args:
        architecture: Sizes.
        name: Of the class in transformers that names them so.
        block: Leaves of a block.
    """
    vocab, embed = architecture.vocab_size, architecture.n_embd
    return layout.Layout(
        architecture=architecture,
        title=f"transformers' {name}",
        leaves=(
            layout.Leaf(
                "wte", "embed_tokens.weight", "embed_tokens/embedding", (vocab, embed), split=1
            ),
            *block,
            layout.Leaf("norm", "norm.weight", "norm/weight", (embed,)),
            layout.Leaf(
                "lm_head/weight",
                "lm_head.weight",
                "lm_head/kernel",
                (vocab, embed),
                transposed_in=("flax",),
                is_optional=architecture.tie_word_embeddings,
                split=1,
            ),
        ),
        prefix="model",
        blocks="layers",
        buffers=_BUFFERS,
    )


def _block(embed: int, options: Options) -> Iterator[layout.Leaf]:
    """Leaves of one block, split over devices as GPT-2's are."""
    query, key = options.n_head * options.head_size, options.n_kv_head * options.head_size
    yield block_leaves.gain("input_layernorm", embed)
    biases = options.qkv_bias, options.output_bias
    yield from block_leaves.attention(embed, query, key, *biases)
    if options.norms_heads:
        yield block_leaves.gain("self_attn/q_norm", options.head_size)
        yield block_leaves.gain("self_attn/k_norm", options.head_size)
    yield block_leaves.gain("post_attention_layernorm", embed)
    yield from block_leaves.gated_mlp(embed, options.n_inner, options.mlp_bias)
