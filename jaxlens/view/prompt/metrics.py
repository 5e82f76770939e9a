"""What a cell of a picture can show, and how strongly it is coloured.

In every picture a strong colour means near: probable, certain, of low rank, of small divergence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from jaxlens import errors

SHARE, RANK, NATS = "share", "rank", "nat"

KL_CAP = 30.0
"""Nats beyond which a divergence has the palest colour, as in the 2020 post."""


@dataclass(frozen=True)
class Metric:
    """A view of the cells.

    Attributes:
        name: As it is asked for.
        title: As it is shown.
        quantity: Field of a readout; of a share its logarithm.
        kind: ``share``: 0 to 1; ``rank``: from 1, coloured by its logarithm; ``nat``: from 0,
            coloured by its root, which tells small values apart.
        cap: Value of the palest colour, or beyond; of a share the least. Numbers are never capped.
        place: Which of the tokens, where the quantity has several a cell.
    """

    name: str
    title: str
    quantity: str
    kind: str
    cap: float
    place: int = 0

    def values(self, readings: Mapping[str, Num[np.ndarray, "..."]]) -> Float[np.ndarray, "..."]:
        """The numbers of the cells; NaN where there is none."""
        numbers = np.asarray(readings[self.quantity], np.float64)
        if numbers.ndim == 3:
            numbers = numbers[..., self.place]
        if self.kind == SHARE:
            return np.exp(numbers)
        return np.where(numbers > 0, numbers, np.nan) if self.kind == RANK else numbers

    def strength(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Place on the ramp of colours, 0 to 1; NaN stays."""
        if self.kind == SHARE:
            return np.clip(values, 0.0, 1.0)
        if self.kind == RANK:
            return 1 - np.clip(np.log(values) / math.log(self.cap), 0.0, 1.0)
        return 1 - np.sqrt(np.clip(values / self.cap, 0.0, 1.0))

    def ticks(self) -> list[tuple[float, str]]:
        """Places on the ramp with their labels, from strong to weak."""
        if self.kind == SHARE:
            values = [1.0, 0.75, 0.5, 0.25, 0.0]
        elif self.kind == RANK:
            values = [10.0**i for i in range(round(math.log10(self.cap)) + 1)]
        else:
            values = [value for value in (0.0, 0.3, 1.0, 3.0, 10.0) if value < self.cap * 0.8]
            values.append(self.cap)
        labels = [f"{value:g}" for value in values]
        if self.kind != SHARE:
            labels[-1] += "+"
        strengths = self.strength(np.array(values)).tolist()
        return list(zip(strengths, labels, strict=True))


def format_number(value: float, kind: str) -> str:
    """A number as cells and tables show it; an en dash where there is none."""
    if math.isnan(value):
        return "–"
    if kind == RANK:
        return f"{value:,.0f}"
    if kind == SHARE:
        return (
            f"{value:.3f}" if value >= 0.0005 or value == 0 else f"{value:.0e}".replace("e-0", "e-")
        )
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def table(vocab_size: int) -> dict[str, Metric]:
    """The metrics of a vocabulary, in the order in which they are offered."""
    certain = math.log(vocab_size)
    metrics = (
        Metric("p_top", "probability of the best token", "top_logp", SHARE, 0.0),
        Metric("rank_final", "rank of the model's own best token", "rank_final", RANK, 100),
        Metric("kl_final", "KL(last layer ‖ this layer)", "kl_final", NATS, KL_CAP),
        Metric("rank_next", "rank of the true next token", "rank_next", RANK, 1000),
        Metric("rank_input", "rank of the input token", "rank_input", RANK, 1000),
        Metric("kl_input", "KL(input ‖ this layer)", "kl_input", NATS, KL_CAP),
        Metric("kl_to_final", "KL(this layer ‖ last layer)", "kl_to_final", NATS, KL_CAP),
        Metric("entropy", "entropy", "entropy", NATS, round(certain, 2)),
    )
    return {metric.name: metric for metric in metrics}


def find(name: str, vocab_size: int) -> Metric:
    """A metric by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    known = table(vocab_size)
    if name not in known:
        raise errors.ConfigError(f"no metric {name}", f"one of {', '.join(known)}")
    return known[name]


def followed(name: str, index: int, vocab_size: int, several: bool = True) -> tuple[Metric, Metric]:
    """The two metrics of a followed token: its rank and its probability.

    Args:
        name: The token, as it can be shown.
        index: Its place among the followed ones.
        vocab_size: Tokens of the vocabulary.
        several: Whether the metrics are numbered, ``rank_follow.1``, as columns of exports are.
    """
    number = f".{index + 1}" if several else ""
    cap = 10.0 ** max(1, math.floor(math.log10(vocab_size)))
    rank, share = f"rank of {name}", f"probability of {name}"
    return (
        Metric(f"rank_follow{number}", rank, "rank_follow", RANK, cap, index),
        Metric(f"p_follow{number}", share, "logp_follow", SHARE, 0.0, index),
    )
