"""Rotary positions: pairs of a head's entries turned by an angle that grows with the position.

The pairs are entry ``i`` of the first half and entry ``i`` of the second, as Hugging Face lays out
queries and keys.

Reference: Su et al. 2021, arXiv:2104.09864; rescaled frequencies: Llama 3.1's model card and
``modeling_rope_utils.py`` of transformers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import errors
from jaxlens.models import config_json

KINDS = ("default", "linear", "llama3")

Angles = tuple[jax.Array, jax.Array]
"""Cosine and sine, ``[batch, position, 1, rotated / 2]``."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """Which frequencies turn the pairs.

    Attributes:
        theta: Base of the frequencies.
        kind: One of ``KINDS``.
        factor: Divides the frequencies that are rescaled.
        low_freq_factor: Waves longer than ``original_positions`` over this are rescaled (llama3).
        high_freq_factor: Waves shorter than ``original_positions`` over this stay (llama3).
        original_positions: Positions that the model was trained on before it was extended (llama3).
    """

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_positions: int = 0

    def frequencies(self, size: int) -> np.ndarray:
        """Radians a position of each of the ``size / 2`` pairs, float32."""
        base = self.theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        if self.kind == "linear":
            base = base / self.factor
        elif self.kind == "llama3":
            waves = self.original_positions * base / (2 * math.pi)  # in the original context
            low, high = self.low_freq_factor, self.high_freq_factor
            kept = np.clip((waves - low) / (high - low), 0.0, 1.0)
            base = base * (kept + (1.0 - kept) / self.factor)
        return base.astype(np.float32)


def parse(config: Mapping[str, Any], theta: float = 10000.0) -> Rope:
    """The frequencies that a ``config.json`` asks for, in its old form or in that of 2025.

    Args:
        config: With ``rope_theta`` and ``rope_scaling``, or with ``rope_parameters``.
        theta: Base where the file leaves it out.

    Raises:
        DataError: They are of a kind that is not computed here, or out of bounds.
    """
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        raise errors.DataError(
            "config.json: rope_scaling must be an object or null", config_json.MEND
        )
    either = {"rope_theta": config.get("rope_theta"), **found}
    kind = found.get("rope_type", found.get("type", "default"))
    if kind not in KINDS:
        raise errors.DataError(
            f"config.json: rope_type {str(kind)[:80]!r} is not supported",
            f"supported: {', '.join(KINDS)}; without it the model is as it was before its "
            "context was extended",
        )
    rope = Rope(config_json.number(either, "rope_theta", theta, 1.0, 1e12), kind)
    if kind == "default":
        return rope
    rope = dataclasses.replace(rope, factor=config_json.number(found, "factor", None, 1.0, 1e6))
    if kind == "linear":
        return rope
    low = config_json.number(found, "low_freq_factor", None, 1e-3, 1e6)
    return dataclasses.replace(
        rope,
        low_freq_factor=low,
        # Between the two the frequencies are interpolated: equal ones would divide by zero.
        high_freq_factor=config_json.number(found, "high_freq_factor", None, low * 1.001, 1e6),
        original_positions=config_json.size(found, "original_max_position_embeddings"),
    )


def dump(rope: Rope) -> dict[str, Any]:
    """Keys of a ``config.json`` that ``parse`` and Hugging Face read as these frequencies."""
    if rope.kind == "default":
        return {"rope_theta": rope.theta, "rope_scaling": None}
    scaling: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "llama3":
        scaling |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_positions,
        }
    return {"rope_theta": rope.theta, "rope_scaling": scaling}


def angles(positions: Int[Array, "batch position"], frequencies: np.ndarray) -> Angles:
    """Cosine and sine of the angle of each pair at each position; float32.

    Args:
        positions: Of each token in its own segment.
        frequencies: Of `Rope.frequencies`.
    """
    angle = positions.astype(jnp.float32)[..., None] * jnp.asarray(frequencies)[None, None]
    return jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]


def rotate(
    x: Float[Array, "batch position heads head"], angles: Angles
) -> Float[Array, "batch position heads head"]:
    """Turns the first entries of each head, as many as there are angles for; the others stay."""
    cosine, sine = angles
    half = cosine.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate([*turned, x[..., 2 * half :]], axis=-1)
