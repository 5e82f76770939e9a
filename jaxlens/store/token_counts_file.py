"""The counts of tokens by which rarity is defined, where they are not the run's own.

Runs over parts of a corpus share the counts of all parts: then the tallies of the study, which sort
positions by rarity, add up to those of the whole. ``token_counts.h5`` is published before the spec,
which names its sha256, and is never written again; it depends on the counts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, Int64

from jaxlens import config, errors
from jaxlens.store import bounds, layout, spec_file
from jaxlens.store.hdf5 import images, reading

if TYPE_CHECKING:
    from jaxlens.store import reader

SECTION = "token_counts"
"""Section of the spec that names the file."""

HINT = "restore it from a copy, or from another run with the same --token-counts"

FILE = spec_file.SpecFile(layout.TOKEN_COUNTS, SECTION, HINT)
"""Where it is, and how a spec names it."""

_ARRAY = "token_counts"
_AXES = {_ARRAY: ("fold", "vocab")}
_MOST = 2**62


@dataclass(frozen=True, eq=False)
class Table:
    """Counts as they are stored.

    Attributes:
        counts: Occurrences of each token in each fold of the documents.
        data: All bytes of the file.
        sha256: Of these.
    """

    counts: Int64[np.ndarray, "fold=2 vocab"]
    data: bytes
    sha256: str


def encode(counts: Int[np.ndarray, "fold=2 vocab"]) -> Table:
    """The file of counts."""
    counts = np.asarray(counts, np.int64)
    data = reading.seal(images.arrays_image({_ARRAY: counts}, {"unit": "1"}, _AXES))
    return Table(counts, data, config.spec_hash(data))


def read(run_dir: str | Path, spec: Mapping[str, Any]) -> Table:
    """The counts that the spec of a run names.

    Raises:
        DataError: They are missing, damaged, or of another vocabulary than the model's.
    """
    with errors.hinted(HINT):
        file, data = FILE.path(run_dir), FILE.read(run_dir, spec, limit(spec))
        with reading.open_sealed(file) as contents, reading.reading(file):
            stored = contents.datasets[_ARRAY]
            shape = (2, bounds.sizes(spec).vocab)
            if stored.shape != shape or stored.dtype != np.int64:
                raise errors.DataError(f"{file} is of another model")
            counts = stored[()]
            if counts.min() < 0 or counts.max() > _MOST // counts.size:
                raise ValueError("its counts make no sense")
            return Table(counts, data, config.spec_hash(data))


def of_run(run: reader.Run) -> Int[np.ndarray, "fold=2 vocab"]:
    """The counts by which a run defines rarity: those that its spec names, or its own.

    Raises:
        MissingError: The run has no token file.
        DataError: A file is damaged.
    """
    if FILE.recorded(run.spec) is None:
        return run.corpus.token_counts
    return read(run.path, run.spec).counts


def limit(spec: Mapping[str, Any]) -> int:
    """Most bytes that the counts of a run can have."""
    return min(4 * 8 * bounds.sizes(spec).vocab + layout.SMALL, 1 << 30)
