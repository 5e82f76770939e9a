"""The difference of a metric between two prompts, models or decoders, and how it is shown.

Differences are first minus second; of ranks, whose size matters by its logarithm, they are the
logarithm of first over second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxlens.view.prompt import metrics

MIN_LIMIT = {metrics.SHARE: 0.05, metrics.RANK: math.log(4), metrics.NATS: 0.1}
"""Smallest difference that gets the strongest colour, so that noise looks like noise."""


@dataclass(frozen=True, eq=False)
class Difference:
    """A metric of one side minus that of the other.

    Attributes:
        metric: Which.
        values: First minus second, of ranks ln(first / second); NaN where nothing is aligned.
        limit: Size of the strongest colour: a round number that no value exceeds.
    """

    metric: metrics.Metric
    values: Float[np.ndarray, "layer column"]
    limit: float

    def strength(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Place on the diverging scale, -1 to 1, 0 for no difference; NaN stays.

        Nats are coloured by the root of their size, as elsewhere.
        """
        share = np.clip(values / self.limit, -1.0, 1.0)
        return (
            np.sign(share) * np.sqrt(np.abs(share)) if self.metric.kind == metrics.NATS else share
        )

    def ticks(self) -> list[tuple[float, str]]:
        """Places on the scale with their labels, from the first side's to the second's."""
        half = self.limit / 4 if self.metric.kind == metrics.NATS else self.limit / 2
        values = [self.limit, half, 0.0, -half, -self.limit]
        places = self.strength(np.array(values)).tolist()
        return [
            (position, self._tick(value)) for position, value in zip(places, values, strict=True)
        ]

    def _tick(self, value: float) -> str:
        if self.metric.kind == metrics.RANK:
            return f"{'÷' if value < 0 else '×'}{math.exp(abs(value)):,.7g}"
        return f"{value:+g}".replace("-", "−") if value else "0"

    def title(self) -> str:
        """The metric and the order of the sides, which pictures call A and B."""
        sign = "over" if self.metric.kind == metrics.RANK else "minus"
        return f"{self.metric.title}: A {sign} B"

    def format_number(self, value: float) -> str:
        """A difference as cells show it: signed, or of ranks how many times the other."""
        return format_difference(value, self.metric.kind)


def format_difference(value: float, kind: str) -> str:
    """A difference with its sign; of ranks a factor, ``×`` where the first is greater."""
    if math.isnan(value):
        return "–"
    if kind == metrics.RANK:
        factor = math.exp(abs(value))
        digits = 2 if factor < 9.995 else 1 if factor < 99.95 else 0
        return "×1" if value == 0 else f"{'÷' if value < 0 else '×'}{factor:,.{digits}f}"
    if value == 0:
        return "0"
    least, digits = (0.0005, 3) if kind == metrics.SHARE else (0.005, 2)
    if kind == metrics.NATS and abs(value) >= 99.995:
        digits = 0
    size = abs(value)
    words = f"{size:.{digits}f}" if size >= least else f"{size:.0e}".replace("e-0", "e-")
    return ("−" if value < 0 else "+") + words


def limit_of(values: Float[np.ndarray, "..."], kind: str) -> float:
    """A round number that no size exceeds; of ranks the logarithm of one."""
    most = float(np.nanmax(np.abs(values), initial=0.0))
    if kind == metrics.RANK:
        # Squares, so that half of the scale is round as well.
        steps = (math.log((digit * 10.0**power) ** 2) for power in range(6) for digit in (2, 5, 10))
    else:
        steps = (digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5))
    limit = next((step for step in steps if step >= max(most, MIN_LIMIT[kind]) - 1e-12), most)
    return min(limit, 1.0) if kind == metrics.SHARE else limit
