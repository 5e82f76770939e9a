"""``probe/mean_stream.h5``: what the lens makes of the mean stream of each layer.

A constant vector, whatever the context: how near to the output it comes is how much of a curve of
divergences has nothing to do with the position. It is made with the probe, which has the means.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jaxlens import config, errors
from jaxlens.store import probe_file
from jaxlens.store.hdf5 import images, reading

NAME = "mean_stream.h5"

_LIMIT = 1 << 32


def path(run_dir: str | Path) -> Path:
    """Where it is in the folder of a run."""
    return probe_file.path(run_dir, NAME)


def image(log_p: Float32[np.ndarray, "layer vocab"], spec_hash: str) -> bytes:
    """Its bytes, with their checksum.

    Args:
        log_p: Log-probabilities at the matched temperature of each layer, nat.
        spec_hash: Of the probe.
    """
    arrays, axes = {"log_p": log_p}, {"log_p": ("layer", "vocab")}
    return reading.seal(images.arrays_image(arrays, {"spec_hash": spec_hash}, axes))


def is_whole(run_dir: str | Path) -> bool:
    """Whether a run with a finished probe has it, undamaged and of that probe.

    Raises:
        StorageError: The system refused to read.
    """
    try:
        return read_of_run(run_dir) is not None
    except errors.DataError:
        return False


def read_of_run(run_dir: str | Path) -> Float32[np.ndarray, "layer vocab"] | None:
    """Log-probabilities of the mean streams of a run; None where it has no finished probe.

    Raises:
        DataError: The file is damaged, or of another probe.
    """
    probe = probe_file.read_of_run(run_dir)
    return None if probe is None or not path(run_dir).is_file() else read(run_dir, probe)


def read(run_dir: str | Path, probe: probe_file.Probe) -> Float32[np.ndarray, "layer vocab"]:
    """Log-probabilities of the mean streams of a run.

    Args:
        run_dir: Run.
        probe: Its finished probe.

    Raises:
        MissingError: There are none.
        DataError: The file is damaged, or of another probe.
    """
    where = path(run_dir)
    hint = probe_file.hint(run_dir, where)
    with (
        errors.hinted(hint),
        reading.open_sealed(where) as contents,
        reading.reading(where),
    ):
        log_p = reading.whole(contents.datasets["log_p"], _LIMIT)
        spec_hash = contents.attribute("spec_hash")
    if spec_hash != config.spec_hash(config.canonical(probe.spec)):
        raise errors.DataError(f"{where} is of another probe", hint)
    sizes = len(probe.layer_names), probe.spec["run"]["model"]["architecture"]["vocab_size"]
    if log_p.shape != sizes or log_p.dtype != np.float32 or not (log_p <= 0).all():
        raise errors.DataError(f"{where} is damaged: log_p is {log_p.dtype} {log_p.shape}", hint)
    return log_p
