"""The folder of an ablation under way: its spec, the mean stream, and the parts that are done.

Each HDF5 file ends with the sha256 of the rest and names the hash of the spec, so that half a part,
or a part of another ablation, is never merged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.files import contained, publish, temporary
from jaxlens.store import ablation_file, begun, layout, strict_json
from jaxlens.store.hdf5 import buffers, reading, writing

MEAN = "mean.h5"

_PART = re.compile(r"part-\d{5}\.h5")


def part_name(number: int) -> str:
    """``part-00017.h5``."""
    return f"part-{number:05d}.h5"


def begin(folder: str | Path, spec_bytes: bytes) -> None:
    """Begins an ablation, or finds that the same one has begun.

    Args:
        folder: Where; created if absent.
        spec_bytes: Canonical JSON of what is computed.

    Raises:
        ConfigError: Another ablation has begun there; the message names what differs.
        DataError: Its spec is damaged.
        StorageError: The disk refuses.
    """
    publish.make_directory(folder)
    path = contained.contained(folder, ablation_file.SPEC)
    if not path.exists():
        publish.publish(path, spec_bytes, replace=False)
    begun.require_same(path, spec_bytes, "ablation")
    temporary.remove_leftovers(folder)


def begun_settings(folder: str | Path) -> dict[str, Any] | None:
    """The settings of the ablation that has begun in a folder; None where none has.

    Raises:
        DataError: Its spec is damaged.
    """
    path = contained.contained(folder, ablation_file.SPEC)
    if not path.exists():
        return None
    with errors.hinted(begun.start_anew(path.parent)):
        return parse_spec(contained.read(path, layout.LARGE), str(path))["ablation"]


def parse_spec(raw: bytes, name: str) -> dict[str, Any]:
    """The document of ``ABLATION.json``.

    Raises:
        DataError: It is damaged.
    """
    document = strict_json.parse(raw, name)
    settings = document.get("ablation")
    arms = settings.get("arms") if isinstance(settings, dict) else None
    if not isinstance(arms, list) or not all(isinstance(arm, str) for arm in arms):
        raise errors.DataError(f"{name} is damaged: it names no arms")
    return document


def write_arrays(
    folder: str | Path, name: str, arrays: Mapping[str, np.ndarray], spec_hash: str
) -> None:
    """Publishes a part, or the mean.

    Raises:
        StorageError: The disk refuses.
    """
    buffer = buffers.Buffer()
    with writing.new_file(buffer) as file:
        writing.describe(file, "Ablation, part", {"spec_hash": spec_hash}, ablation_file.VERSION)
        for key, value in sorted(arrays.items()):
            writing.dataset(file, key, value, compress=False)
    publish.publish(contained.contained(folder, name), reading.seal(buffer.image()))


def read_arrays(
    folder: str | Path, name: str, spec_hash: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray] | None:
    """A part, or the mean; None where it is absent, damaged, or not that of the spec."""
    path = contained.contained(folder, name)
    try:
        with reading.open_sealed(path) as contents, reading.reading(path):
            stored = {key: item.shape for key, item in contents.datasets.items()}
            if contents.attribute("spec_hash") != spec_hash or stored != dict(shapes):
                return None
            return {
                k: reading.whole(v, ablation_file.MAX_BYTES) for k, v in contents.datasets.items()
            }
    except (errors.MissingError, errors.DataError):
        return None


def remove_parts(folder: str | Path) -> None:
    """Removes what a finished ablation needs no more."""
    for name in contained.names(Path(folder)):
        if _PART.fullmatch(name) or name == MEAN:
            publish.remove(contained.contained(folder, name))
