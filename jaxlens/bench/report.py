"""What a benchmark measured of one configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxlens.bench import stages


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of `measure.measure`; lists of seconds hold a round each, of all devices at once.

    Attributes:
        shape: Name of the model's shape, or where it came from.
        settings: Length, sequences, precision, tile, block, rows.
        devices: Number of devices.
        tokens: Tokens that ``forward``, ``lens`` and ``fetch`` read in a round.
        seconds: Stages: ``sweep`` (end to end), ``forward``, ``lens``, ``fetch``, ``publish``.
        sweep_tokens: Tokens of a shard, which is a round of ``sweep`` and ``publish``.
        published_bytes: Size of a shard.
        flops: Floating-point operations a token, by stage.
        bytes_moved: Bytes a token that have to move through memory, at least, by stage.
        multiply_flops: Rate of a plain matrix multiply, operations a second.
        copy_bytes: Bandwidth of a plain copy, bytes read and written a second.
        compile_seconds: Time to compile the step for all devices.
        peak_bytes: Most memory held: of the host, and of the first device where it says so.
        accuracy: Against the float32 reference: ``nats`` (largest difference of a float),
            ``ranks`` and ``top`` (shares that agree).
        environment: See ``environment.describe``.
    """

    shape: str
    settings: dict[str, Any]
    devices: int
    tokens: int
    seconds: dict[str, stages.Seconds]
    sweep_tokens: int
    published_bytes: int
    flops: dict[str, float]
    bytes_moved: dict[str, float]
    multiply_flops: float
    copy_bytes: float
    compile_seconds: float
    peak_bytes: dict[str, int]
    accuracy: dict[str, float]
    environment: dict[str, Any]

    def rate(self, stage: str) -> float:
        """Tokens a second of a stage, from the median round."""
        tokens = self.sweep_tokens if stage in ("sweep", "publish") else self.tokens
        return tokens / float(np.median(self.seconds[stage]))

    def of_multiply(self, stage: str) -> float:
        """Share of the matrix-multiply rate that a stage reaches."""
        return self.rate(stage) * self.flops[stage] / self.multiply_flops
