"""The lens on arrays: residuals of a model, readouts of residuals, whole distributions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlens import arguments, errors, models, types
from jaxlens.api import array_checks, checks
from jaxlens.api.readout import Readout
from jaxlens.corpus import references
from jaxlens.lens import decoders, implementations, numerics, options, reference, temperature
from jaxlens.models import loading, patches
from jaxlens.models.loading import Model
from jaxlens.models.tokenizer import token_bytes

ArrayLike = Array | np.ndarray

Layers = int | str | Sequence[int | str] | None
"""Residual streams by number, negative from the end, or by name; None is all of them."""


def residuals(
    model: Model,
    tokens: Int[ArrayLike, "batch position"],
    *,
    precision: str = "float32",
    patch: patches.Patch | None = None,
) -> Float[Array, "layer batch position embed"]:
    """Every residual stream of the model, before the final norm.

    Args:
        model: From ``load_model``.
        tokens: Token ids, at most ``n_positions`` a line; pad on the right.
        precision: Operands of the matrix multiplies.
        patch: Pure function ``patch(layer, stream)`` that is applied to every stream before it is
            returned and handed on to the next block: ``models.patches.Replace``, or any other
            function. Bind arrays that it depends on with ``jax.tree_util.Partial``, so that other
            values do not compile again.

    Returns:
        Float32; layer 0 is the embedding, layer k the output of block k - 1.

    Raises:
        ConfigError: The tokens do not fit the model, or the patch is not a function.
    """
    checks.model(model)
    numerics.require_precision(precision)
    ids = array_checks.tokens(tokens, model.config)
    return loading.forward(model.params, model.config, ids, precision, _as_pytree(patch))


def _as_pytree(patch: Any) -> Any:
    """A patch as an argument of a compiled function: any pytree that can be called is one."""
    if patch is None:
        return None
    if not callable(patch):
        raise errors.ConfigError(
            f"patch is a {type(patch).__name__}", "give a function of layer and stream"
        )
    return jax.tree_util.Partial(patch) if jax.tree_util.all_leaves([patch]) else patch


@numerics.nan_is_missing()
def read_lens(
    model: Model,
    tokens: Int[ArrayLike, "batch position"],
    mask: Bool[ArrayLike, "batch position"] | None = None,
    decoder: str = "final_norm",
    top_k: int = 1,
    quantities: str | Iterable[str] | None = None,
    follow: Any = None,
    layers: Layers = None,
    *,
    precision: str = "float32",
    implementation: str = "tiled",
) -> Readout:
    """Reads the logit lens on a batch of prompts.

    Each line is a document of its own: its next tokens are its own, and the foreign tokens come
    from the other lines.

    Args:
        model: From ``load_model``.
        tokens: Token ids.
        mask: True where the token is real; padding is on the right.
        decoder: ``final_norm``, ``plain`` or ``final_norm_nobias``.
        top_k: How many tokens ``top_id`` and ``top_logp`` hold.
        quantities: ``core`` (default), ``full``, or names to add to ``core``.
        follow: Token ids to follow down the layers: ``[m]`` for all prompts, ``[batch, m]`` for
            each (``[batch, 1]`` is one answer a prompt), or ``[batch, position, m]``; -1 is none.
            As many as there are prompts, ``[batch]``, could be either and are refused.
        layers: Residual streams to report, by number (negative from the end) or by name
            (``input``, ``h.0``, ...); all of them by default.
        precision: Operands of the matrix multiplies.
        implementation: ``tiled``; ``pallas``, with a kernel of the device (experimental; a CPU
            interprets it, slowly); or ``reference`` to check them.

    Returns:
        Fields ``[layer, batch, position]``, ids and ranks int32, the rest float32 in nats.

    Raises:
        ConfigError: Tokens, mask, names or layers do not fit, or the kernel does not read them.
    """
    checks.model(model)
    checks.decoder(decoder)
    tokens = array_checks.grid(tokens)
    mask = array_checks.mask(mask, tokens.shape)
    streams = residuals(
        model, tokens if mask is None else np.where(mask, tokens, 0), precision=precision
    )
    return read_residuals(
        streams,
        models.unembed(model.params, model.config, decoder),
        tokens,
        mask,
        top_k=top_k,
        quantities=quantities,
        follow=follow,
        layers=layers,
        precision=precision,
        implementation=implementation,
        tokenizer=model.tokenizer,
        check=False,
    )


@numerics.nan_is_missing()
def read_residuals(
    residuals: Float[ArrayLike, "layer batch position embed"],
    unembed: types.Unembed,
    tokens: Int[ArrayLike, "batch position"],
    mask: Bool[ArrayLike, "batch position"] | None = None,
    *,
    top_k: int = 1,
    quantities: str | Iterable[str] | None = None,
    follow: Any = None,
    layers: Layers = None,
    precision: str = "float32",
    implementation: str = "tiled",
    seed: int = 0,
    tokenizer: Any = None,
    check: bool = True,
) -> Readout:
    """Reads the lens on residuals from anywhere; see ``read_lens``.

    Args:
        residuals: All streams from the embedding to the last block, before the final norm.
        unembed: Head and decoder. Without a temperature for each layer, ``kl_final_matched``
            takes those that fit these tokens best.
        tokens: Tokens that the residuals belong to.
        mask: As for ``read_lens``.
        top_k: As for ``read_lens``.
        quantities: As for ``read_lens``.
        follow: As for ``read_lens``.
        layers: As for ``read_lens``.
        precision: As for ``read_lens``.
        implementation: As for ``read_lens``.
        seed: Seed of the foreign tokens.
        tokenizer: A ``tokenizers.Tokenizer`` that spells the tokens where the readout is looked at;
            without one they are shown as numbers.
        check: Whether residuals are refused whose last layer is the output of the final norm,
            such as the last of Hugging Face's ``hidden_states``.

    Raises:
        ConfigError: Shapes or names do not fit, the kernel does not read them, the stack has
            another depth than the model whose ``unembed`` it is, or its last layer is normalised
            already.
    """
    numerics.require_precision(precision)
    checks.unembed(unembed)
    seed = arguments.whole(seed, "seed")
    tokens = array_checks.grid(tokens)
    mask = array_checks.mask(mask, tokens.shape)
    streams = _streams(residuals, tokens.shape, unembed)
    arguments.one_of(implementation, "implementation", implementations.IMPLEMENTATIONS)
    check = arguments.flag(check, "check")
    checks.speller(tokenizer)
    names = options.resolve_quantities(quantities)
    # Best tokens come with their log-probabilities, which cost nothing here; a sweep stores them
    # only where they are asked for.
    names = (*names, *(n for n in ("top_logp",) if n not in names))
    known = references.in_memory(tokens, mask, seed)
    if "kl_final_matched" in names and unembed.temperature is None:
        fitted = temperature.of_batch(streams, np.asarray(known.mask), unembed, precision)
        unembed = dataclasses.replace(unembed, temperature=jnp.asarray(fitted, jnp.float32))
    vocab_size = unembed.weight.shape[0]
    array_checks.in_vocabulary(np.asarray(known.input)[known.mask], vocab_size)
    if check:
        array_checks.not_normalised(streams[-1], np.asarray(known.mask), unembed)
    if follow is not None:
        ids: Any = array_checks.follow(follow, known.input.shape, vocab_size)
        known = dataclasses.replace(known, follow=ids)
        names = (*names, *(n for n in ("rank_follow", "logp_follow") if n not in names))
    request = options.Options(names, checks.layers(layers, len(streams)), top_k, precision)
    chosen = request.for_model(len(streams), vocab_size).layers or ()
    checks.implementation(implementation, request, chosen, streams.shape, known, unembed)
    own: Any = np.array(known.mask)  # not the caller's, who may write on it
    labels = types.Labels(
        dataclasses.replace(known, mask=own),
        chosen,
        len(streams),
        unembed.kind,
        vocab_size,
        functools.partial(token_bytes, tokenizer) if tokenizer is not None else None,
    )
    # The labels join the arrays here, where they are known to belong together.
    values = _read(implementation, streams, unembed, known, request)
    return Readout(**values.present(), labels=labels)


def log_probs(
    model: Model,
    tokens: Int[ArrayLike, "batch position"],
    layer: int | str,
    decoder: str = "final_norm",
) -> Float[Array, "batch position vocab"]:
    """The whole distribution of one layer, in nats, where somebody wants all of it.

    Args:
        model: From ``load_model``.
        tokens: Token ids.
        layer: Residual stream, 0 to ``n_layer``, negative from the end, or its name.
        decoder: As for ``read_lens``.

    Raises:
        ConfigError: No such layer, or tokens that do not fit.
    """
    checks.model(model)
    checks.decoder(decoder)
    number = checks.layer(layer, model.config.n_layer + 1)
    unembed = models.unembed(model.params, model.config, decoder)
    return _distribution(residuals(model, tokens), unembed, np.int32(number))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _read(
    implementation: str,
    streams: jax.Array,
    unembed: types.Unembed,
    known: types.References,
    request: options.Options,
) -> types.Readout:
    return implementations.IMPLEMENTATIONS[implementation](streams, unembed, known, request)


@jax.jit
def _distribution(streams: jax.Array, unembed: types.Unembed, layer: jax.Array) -> jax.Array:
    return numerics.log_softmax(
        reference.logits(decoders.normalise(streams, unembed)[layer], unembed)
    )


def _streams(residuals: Any, shape: tuple[int, ...], unembed: types.Unembed) -> jax.Array:
    """Residuals as a float32 array, of the shape that tokens and unembedding ask for."""
    try:
        streams = jnp.asarray(residuals, jnp.float32)
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(
            f"residuals are a {type(residuals).__name__} that is not an array",
            "give floats [layer, batch, position, embed]; np.stack joins a list of layers",
        ) from error
    expected = (*shape, np.shape(unembed.scale)[0])
    if streams.ndim != 4 or streams.shape[1:] != expected or streams.shape[0] < 2:
        raise errors.ConfigError(
            f"residuals have shape {streams.shape}, tokens {shape}",
            "give [layer, batch, position, embed] with the embedding's stream and every block's",
        )
    checks.depth(len(streams), unembed.n_layer)
    return streams
