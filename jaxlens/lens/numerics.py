"""Pure maths shared by the models and the lens; everything is float32 inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlens import errors
from jaxlens.files import memory

_ALGORITHMS: dict[str, tuple[str, ...]] = {
    # name -> backends that have it; "*" is every backend
    "float32": ("*",),
    "bfloat16": ("*",),
    "tf32": ("gpu", "cuda", "rocm"),
    "bf16x3": ("gpu", "cuda", "tpu"),
}

_MATMUL_PRECISION = {
    "float32": "highest",
    "bfloat16": "highest",
    "tf32": "tensorfloat32",
    "bf16x3": "BF16_BF16_F32_X3",
}


def require_precision(precision: str, backend: str | None = None) -> None:
    """Refuses an operand precision that the backend does not have.

    Raises:
        ConfigError: Naming precision and backend.
    """
    backend = backend or _default_backend()
    have = _ALGORITHMS.get(precision) if isinstance(precision, str) else None
    if have is None:
        raise errors.ConfigError(f"unknown precision {precision}", f"one of {list(_ALGORITHMS)}")
    if "*" not in have and backend not in have:
        raise errors.ConfigError(
            f"precision {precision} does not exist on backend {backend}",
            "use float32 or bfloat16",
        )


def _default_backend() -> str:
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        memory.reraise(error)
        # What JAX raises where JAX_PLATFORMS names something that this machine lacks.
        what = " ".join(str(error).split()) or type(error).__name__
        raise errors.ConfigError(f"JAX finds no device: {what}", "check JAX_PLATFORMS") from error


def require_compilation() -> None:
    """Refuses to work for hours where JAX compiles nothing.

    Raises:
        ConfigError: ``JAX_DISABLE_JIT`` is set.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise errors.ConfigError(
            "JAX_DISABLE_JIT is set: without compilation this takes hours", "unset JAX_DISABLE_JIT"
        )


@contextlib.contextmanager
def nan_is_missing() -> Iterator[None]:
    """Context in which NaN is no error under ``JAX_DEBUG_NANS``; also a decorator.

    Here NaN stands for a value that does not exist, such as the rank of a token after the last.
    """
    with jax.debug_nans(False):
        yield


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which every traced matrix multiply has this precision, and no default."""
    return jax.default_matmul_precision(_MATMUL_PRECISION[precision])


def operand_dtype(precision: str) -> Any:
    """Type to which the operands of a matrix multiply are rounded."""
    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32


def normalise(x: Float[Array, "... embed"], eps: float) -> Float[Array, "... embed"]:
    """Layer norm without gain and bias: zero mean and unit variance along ``embed``.

    The variance is taken in a second pass over ``x - mean``: GPT-2's residuals reach thousands,
    where ``E[x^2] - E[x]^2`` loses every digit.

    Reference: Ba, Kiros, Hinton 2016, arXiv:1607.06450.
    """
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + np.float32(eps))


def layer_norm(
    x: Float[Array, "... embed"],
    scale: Float[Array, " embed"],
    bias: Float[Array, " embed"],
    eps: float,
) -> Float[Array, "... embed"]:
    """Layer norm with gain and bias, float32."""
    normed = normalise(x, eps)
    return normed * widen(scale, normed) + widen(bias, normed)


def rms_normalise(x: Float[Array, "... embed"], eps: float) -> Float[Array, "... embed"]:
    """RMS norm without gain: unit mean square along ``embed``; the mean stays.

    Reference: Zhang, Sennrich 2019, arXiv:1910.07467.
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + np.float32(eps))


def rms_norm(
    x: Float[Array, "... embed"], scale: Float[Array, " embed"], eps: float
) -> Float[Array, "... embed"]:
    """RMS norm with gain, float32."""
    normed = rms_normalise(x, eps)
    return normed * widen(scale, normed)


def widen(vector: Float[Array, " last"], like: jax.Array) -> Float[Array, "... last"]:
    """A float32 vector along the last axis, with as many axes as ``like``."""
    return jnp.expand_dims(vector.astype(jnp.float32), tuple(range(like.ndim - 1)))


def softcap(logits: Float[Array, "*any"], cap: float) -> Float[Array, "*any"]:
    """``cap * tanh(logits / cap)``, between -cap and cap."""
    return np.float32(cap) * jnp.tanh(logits / np.float32(cap))


def log_softmax(logits: Float[Array, "... vocab"]) -> Float[Array, "... vocab"]:
    """Logarithm of the softmax along ``vocab``, in nats."""
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def entropy(log_p: Float[Array, "... vocab"]) -> Float[Array, "..."]:
    """``-sum p log p`` in nats, from log-probabilities."""
    return -(jnp.exp(log_p) * log_p).sum(-1)


def kl_divergence(
    log_p: Float[Array, "... vocab"], log_q: Float[Array, "... vocab"]
) -> Float[Array, "..."]:
    """``KL(p || q) = sum p (log p - log q)`` in nats, never below 0 (rounding is clamped)."""
    return jnp.maximum((jnp.exp(log_p) * (log_p - log_q)).sum(-1), 0.0)


def js_divergence(
    log_p: Float[Array, "... vocab"], log_q: Float[Array, "... vocab"]
) -> Float[Array, "..."]:
    """Jensen-Shannon divergence in nats, between 0 and ln 2.

    Reference: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    log_m = jnp.logaddexp(log_p, log_q) - np.float32(np.log(2.0))
    return 0.5 * (kl_divergence(log_p, log_m) + kl_divergence(log_q, log_m))


def rank(logits: Float[Array, "... vocab"], token: jax.Array, value: jax.Array) -> jax.Array:
    """``1 + #{v != token : logits[v] > value}``: 1-based, ties do not count.

    Args:
        logits: Float32 logits; never probabilities, whose underflow makes giant ties.
        token: Token ids, shape of ``logits`` without ``vocab``.
        value: The token's own logit.
    """
    other = _columns(logits) != token[..., None]
    return 1 + ((logits > value[..., None]) & other).sum(-1, dtype=jnp.int32)


def ties(logits: Float[Array, "... vocab"], token: jax.Array, value: jax.Array) -> jax.Array:
    """``#{v != token : logits[v] == value}``."""
    other = _columns(logits) != token[..., None]
    return ((logits == value[..., None]) & other).sum(-1, dtype=jnp.int32)


def _columns(logits: jax.Array) -> jax.Array:
    return jax.lax.broadcasted_iota(
        jnp.int32, (1,) * (logits.ndim - 1) + logits.shape[-1:], logits.ndim - 1
    )
