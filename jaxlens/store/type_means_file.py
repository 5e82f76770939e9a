"""The table of means of token types that a run subtracts: ``type_means.h5``.

It is published before the spec, which names its sha256, and is never written again. It says which
spec it was made for (``made_for``: the sha256 of the spec without the table), so that a run that
was killed between the two finds it again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config, errors
from jaxlens.files import contained
from jaxlens.store import bounds, layout, spec_file
from jaxlens.store.hdf5 import images, reading
from jaxlens.tally import axes
from jaxlens.tally.type_means import TypeMeans

SECTION = "type_means"
"""Section of the spec that names the table."""

HINT = (
    "restore it from a copy, or begin anew with another --out: without it the run can neither go "
    "on nor be repaired"
)

FILE = spec_file.SpecFile(layout.TYPE_MEANS, SECTION, HINT)
"""Where it is, and how a spec names it."""

_AXES = {"column": ("vocab", "within"), "ln_rank": ("vocab", "layer")}
_TYPE = np.dtype(np.int32)
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it is stored.

    Attributes:
        means: By token type.
        data: All bytes of the file.
        sha256: Of these.
    """

    means: TypeMeans
    data: bytes
    sha256: str


def encode(means: TypeMeans, spec: Mapping[str, Any], positions: int) -> Table:
    """The file of a table.

    Args:
        means: By token type.
        spec: That it is made for, without a table.
        positions: That the means are of.
    """
    attributes: dict[str, int | str] = {
        "made_for": made_for(spec),
        "positions": positions,
        "unit": "2**-16",
        "columns": " ".join(axes.WITHIN),
    }
    data = reading.seal(images.arrays_image(means._asdict(), attributes, _AXES))
    return Table(means, data, config.spec_hash(data))


def made_for(spec: Mapping[str, Any]) -> str:
    """The sha256 of a spec without its table."""
    rest = {name: section for name, section in spec.items() if name != SECTION}
    return config.spec_hash(config.canonical(rest))


def read(run_dir: str | Path, spec: Mapping[str, Any]) -> Table:
    """The table that the spec of a run names.

    Raises:
        DataError: It is missing, damaged, or of another shape than the model's.
    """
    return _open(FILE.path(run_dir), FILE.read(run_dir, spec, limit(spec)), spec)[0]


def find(run_dir: str | Path, spec: Mapping[str, Any]) -> Table | None:
    """The table that was made for a run without a spec yet; None where there is none.

    Args:
        run_dir: Run directory, which may not exist.
        spec: Of the run, without a table.

    Raises:
        ConfigError: It was made for another spec, or is damaged.
    """
    file = FILE.path(run_dir)
    if not os.path.lexists(file):
        return None
    try:
        table, made_for_ = _open(file, contained.read(file, limit(spec)), spec)
    except errors.DataError as error:
        raise errors.ConfigError(error.message, f"remove {file}: no run has begun there") from error
    if made_for_ != made_for(spec):
        raise errors.ConfigError(
            f"{file} was made for a run with other settings, which never began",
            f"give those settings, remove {file}, or use another --out",
        )
    return table


def _open(file: Path, data: bytes, spec: Mapping[str, Any]) -> tuple[Table, int | str]:
    """The table of a file, and what it was made for.

    Raises:
        DataError: It is damaged, or of another model than that of the spec.
    """
    with reading.open_sealed(file) as contents, reading.reading(file):
        stored = [contents.datasets[name] for name in TypeMeans._fields]
        vocab_size, n_layers = _sizes(spec)
        shapes = [(vocab_size, len(axes.WITHIN)), (vocab_size, n_layers)]
        if [item.shape for item in stored] != shapes or {item.dtype for item in stored} != {_TYPE}:
            raise errors.DataError(f"{file} is of another model", HINT)
        means = TypeMeans(*(item[()] for item in stored))
        return Table(means, data, config.spec_hash(data)), contents.attribute("made_for")


def limit(spec: Mapping[str, Any]) -> int:
    """Most bytes that a table of a run can have."""
    vocab_size, n_layers = _sizes(spec)
    size = _TYPE.itemsize * vocab_size * (len(axes.WITHIN) + n_layers)
    return min(2 * size + layout.SMALL, _MAX_BYTES)


def _sizes(spec: Mapping[str, Any]) -> tuple[int, int]:
    sizes = bounds.sizes(spec)
    return sizes.vocab, sizes.layers
