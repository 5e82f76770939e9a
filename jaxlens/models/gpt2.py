"""GPT-2 as a stacked parameter pytree and one scan whose outputs are the residuals.

Parameters (see ``checkpoints`` for how files become this): ``wte [vocab, embed]``,
``wpe [position, embed]``, ``h`` with every leaf stacked over layers and kernels ``[in, out]``,
``ln_f``, and ``lm_head`` only where the head is untied or has a bias.

Reference: Radford et al. 2019; layout of Hugging Face's ``GPT2LMHeadModel``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import types
from jaxlens.lens import mesh, numerics, slicing
from jaxlens.models import activations, attention, gpt2_config, layers, patches, streams

TITLE = "GPT-2"

parse, dump, leaves = gpt2_config.parse, gpt2_config.dump, gpt2_config.leaves


def init(architecture: types.Architecture, seed: int) -> types.Params:
    """Fresh weights as GPT-2 was initialised: normal, 0.02, residual projections scaled down.

    Args:
        architecture: Sizes.
        seed: Seed of the NumPy generator; the same seed and NumPy give the same bits.

    Returns:
        Float32 NumPy pytree of the layout above.
    """
    random = np.random.Generator(np.random.Philox(seed))
    depth, embed, inner = architecture.n_layer, architecture.n_embd, architecture.options.n_inner

    def normal(*shape: int, scale: float = 0.02) -> np.ndarray:
        return random.standard_normal(shape, np.float32) * np.float32(scale)

    def norm(*stack: int) -> types.Params:
        return {
            "scale": np.ones((*stack, embed), np.float32),
            "bias": np.zeros((*stack, embed), np.float32),
        }

    def dense(rows: int, columns: int, scale: float = 0.02) -> types.Params:
        return {
            "kernel": normal(depth, rows, columns, scale=scale),
            "bias": np.zeros((depth, columns), np.float32),
        }

    residual = 0.02 / np.sqrt(2 * max(depth, 1))
    params: types.Params = {
        "wte": normal(architecture.vocab_size, embed),
        "wpe": normal(architecture.n_positions, embed),
        "h": {
            "ln_1": norm(depth),
            "attn": {"c_attn": dense(embed, 3 * embed), "c_proj": dense(embed, embed, residual)},
            "ln_2": norm(depth),
            "mlp": {"c_fc": dense(embed, inner), "c_proj": dense(inner, embed, residual)},
        },
        "ln_f": norm(),
    }
    if not architecture.tie_word_embeddings:
        params["lm_head"] = {"weight": normal(architecture.vocab_size, embed)}
    return params


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
    """Every residual stream: the embedding and the output of each block, before ``ln_f``.

    Args:
        params: Parameters; their type is the type of the matrix multiplies' operands, while
            the residual stream itself is float32.
        architecture: Sizes and options.
        tokens: Token ids.
        positions: Index that ``wpe`` sees; 0, 1, 2, ... in each sequence by default.
        segments: Tokens attend only within their own segment; one segment by default.
        dtype: Type of what is returned; the blocks hand on float32 among themselves.
        patch: See ``models.residuals``.

    Returns:
        ``layer`` counts ``n_layer + 1``.
    """
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    embedded = slicing.rows(params["wte"], tokens).astype(jnp.float32)
    embedded = embedded + slicing.rows(params["wpe"], positions).astype(jnp.float32)

    def block(weights: types.Params, stream: jax.Array, number: jax.Array) -> jax.Array:
        return _block(weights, architecture, stream, number, segments)

    return streams.collect(block, params["h"], embedded, architecture.n_layer, dtype, patch)


def unembed(
    params: types.Params, architecture: types.Architecture, kind: str = "final_norm"
) -> types.Unembed:
    """The model's own final norm and head, with the decoder ``kind`` for the other layers."""
    eps = architecture.options.layer_norm_epsilon
    return layers.unembed(params, architecture, kind, **params["ln_f"], eps=eps)


def forward_flops(architecture: types.Architecture, length: int) -> float:
    """Operations of the blocks' multiplies a token; attention sees half of the line on average."""
    embed, inner = architecture.n_embd, architecture.options.n_inner
    block = 2 * embed * (4 * embed + 2 * inner) + 2 * length * embed
    return float(architecture.n_layer * block)


def _query_key_value(
    x: Float[Array, "batch position embed"], layer: types.Params, scale: jax.Array
) -> list[Float[Array, "batch position embed"]]:
    """The three projections that attention reads, the query scaled."""
    kernel = layer["kernel"]
    if kernel.ndim == 3:  # devices share the model: each has its columns of the three matrices
        x = x.astype(kernel.dtype)
        product = jnp.einsum("bpe,emc->bpmc", x, kernel, preferred_element_type=jnp.float32)
        product = product + layer["bias"].astype(jnp.float32)[None, None]
        scales = jnp.where(jnp.arange(3) == 0, scale, jnp.float32(1.0))[None, None, :, None]
        packed = mesh.constrain((product * scales).astype(kernel.dtype), 3)
        return [packed[:, :, i] for i in range(3)]
    packed = layers.dense(x, layer)
    embed = packed.shape[-1] // 3
    scales = jnp.where(jnp.arange(3 * embed) < embed, scale, jnp.float32(1.0))
    # Rounded before the heads are taken apart, so that half the bytes are laid out anew.
    packed = (packed * numerics.widen(scales, packed)).astype(kernel.dtype)
    return jnp.split(packed, 3, axis=-1)


def _block(
    params: types.Params,
    architecture: types.Architecture,
    stream: Float[Array, "batch position embed"],
    number: jax.Array,
    segments: jax.Array | None,
) -> Float[Array, "batch position embed"]:
    eps = architecture.options.layer_norm_epsilon
    normed = numerics.layer_norm(stream, params["ln_1"]["scale"], params["ln_1"]["bias"], eps)
    stream = stream + _attention(params["attn"], architecture, normed, number, segments)
    normed = numerics.layer_norm(stream, params["ln_2"]["scale"], params["ln_2"]["bias"], eps)
    activation = activations.ACTIVATIONS[architecture.options.activation_function]
    hidden = activation(layers.dense(normed, params["mlp"]["c_fc"]))
    return stream + mesh.constrain(layers.dense(hidden, params["mlp"]["c_proj"]))


def _attention(
    params: types.Params,
    architecture: types.Architecture,
    x: Float[Array, "batch position embed"],
    number: jax.Array,
    segments: jax.Array | None,
) -> Float[Array, "batch position embed"]:
    batch, length, embed = x.shape
    heads = architecture.options.n_head
    # The scale varies by layer in some checkpoints; the query carries it.
    scale = jnp.float32(1.0)
    if architecture.options.scale_attn_weights:
        scale = scale / np.float32(np.sqrt(embed // heads))
    if architecture.options.scale_attn_by_inverse_layer_idx:
        scale = scale / (number + 1.0)
    parts = _query_key_value(x, params["c_attn"], scale)
    # Each device takes its own heads; where they cannot be shared out evenly, all of them.
    query, key, value = (
        mesh.constrain(
            part.reshape(batch, length, heads, embed // heads),
            2 if mesh.divides(heads) else None,
        )
        for part in parts
    )
    mixed = attention.causal(query, key, value, segments)
    return mesh.constrain(layers.dense(mixed.reshape(batch, length, embed), params["c_proj"]))
