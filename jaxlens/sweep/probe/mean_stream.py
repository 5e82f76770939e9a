"""The lens of the mean stream of each layer: a constant vector that a study compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from jaxlens import config, types
from jaxlens.files import publish
from jaxlens.lens import decoders, numerics, reference
from jaxlens.store import mean_stream_file, probe_file
from jaxlens.sweep.job import Job


def write(job: Job, document: Mapping[str, Any]) -> None:
    """Decodes the mean streams of a run's finished probe, at the temperature of each layer.

    Args:
        job: The run.
        document: Spec of its probe.
    """
    n_layers = job.model.config.n_layer + 1
    streams = [probe_file.read_directions(job.out, layer).centre for layer in range(n_layers)]
    log_p = log_probabilities(np.stack(streams), job.unembed, job.config.lens.precision)
    spec_hash = config.spec_hash(config.canonical(document))
    publish.publish(mean_stream_file.path(job.out), mean_stream_file.image(log_p, spec_hash))


def log_probabilities(
    streams: Float32[np.ndarray, "layer embed"], unembed: types.Unembed, precision: str
) -> Float32[np.ndarray, "layer vocab"]:
    """What the lens says of one vector a layer.

    Args:
        streams: Of all layers.
        unembed: Decoder and head, with the temperatures.
        precision: Operands of the matrix multiply.
    """
    normed = decoders.normalise(jnp.asarray(streams), unembed)
    logits = reference.logits(normed, unembed, precision)
    temperature = unembed.temperature
    if temperature is not None:
        logits = logits / jnp.asarray(temperature, jnp.float32)[:, None]
    return np.minimum(np.asarray(numerics.log_softmax(logits), np.float32), 0.0)
