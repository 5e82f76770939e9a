"""``probe/directions/layer-00.h5`` and so on: the fitted probe of the own token at a layer."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from jaxlens import errors
from jaxlens.store.hdf5 import images, reading

_LIMIT = 1 << 32


@dataclass(frozen=True, eq=False)
class Directions:
    """The probe of the own token at a layer.

    Attributes:
        class_token: ``[class]``: token id of each candidate.
        mean: ``[class, embed]``: mean of the residual stream where the token is.
        discriminant: ``[class, embed]``: ``S^-1 (mean - centre)``, S the pooled covariance within
            classes with its ridge.
        centre: ``[embed]``: mean over all training positions of candidates.
    """

    class_token: Int64[np.ndarray, " class"]
    mean: Float32[np.ndarray, "class embed"]
    discriminant: Float32[np.ndarray, "class embed"]
    centre: Float32[np.ndarray, " embed"]


def image(directions: Directions, layer: int, spec_hash: str) -> bytes:
    """The bytes of the directions of a layer, with their checksum."""
    axes = {
        "class_token": ("class",),
        "mean": ("class", "embed"),
        "discriminant": ("class", "embed"),
        "centre": ("embed",),
    }
    attributes: dict[str, int | str] = {"layer": layer, "spec_hash": spec_hash}
    return reading.seal(images.arrays_image(vars(directions), attributes, axes))


@contextlib.contextmanager
def opened(path: Path, layer: int, spec_hash: int | str | None) -> Generator[reading.Contents]:
    """The open file of a layer.

    Args:
        path: File.
        layer: Number of the residual stream.
        spec_hash: Of the probe.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged, of another layer, or of another probe.
    """
    with reading.open_sealed(path) as contents, reading.reading(path):
        if contents.attribute("spec_hash") != spec_hash:
            raise errors.DataError(f"{path} is of another probe than probe.h5")
        if contents.attribute("layer") != layer:
            raise errors.DataError(f"{path} is of layer {contents.attribute('layer')}")
        if missing := set(Directions.__dataclass_fields__) - set(contents.datasets):
            raise errors.DataError(f"{path} lacks {min(missing)}")
        yield contents


def read(contents: reading.Contents) -> Directions:
    """The numbers of an open file."""
    names = Directions.__dataclass_fields__
    return Directions(**{n: reading.whole(contents.datasets[n], _LIMIT) for n in names})
