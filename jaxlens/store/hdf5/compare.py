"""Whether two HDF5 files say the same, however their bytes are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from jaxlens.files import contained
from jaxlens.store.hdf5 import reading


def require_same(path: Path, data: bytes) -> None:
    """Compares a sealed file with what it must be, in contents where the bytes differ.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged, or says something else.
    """
    if contained.holds(path, data):
        return
    with (
        reading.open_sealed(path, virtual=True) as stored,
        reading.open_image(data, virtual=True) as expected,
        reading.reading(path),
    ):
        if different := same_contents(expected, stored):
            raise ValueError(f"{different} is not what follows from the shards")


def same_contents(one: reading.Contents, other: reading.Contents) -> str:
    """The first dataset or attribute in which two files differ; empty if there is none."""
    if odd := set(one.datasets) ^ set(other.datasets):
        return ", ".join(sorted(odd))
    for name, dataset in one.datasets.items():
        if not _same_dataset(dataset, other.datasets[name]):
            return name
    return "" if _plain(one.file) == _plain(other.file) else "the attributes"


def _same_dataset(one: h5py.Dataset, other: h5py.Dataset) -> bool:
    if (one.shape, one.dtype, one.is_virtual) != (other.shape, other.dtype, other.is_virtual):
        return False
    if _plain(one) != _plain(other):
        return False
    if one.is_virtual:
        return [_source(s) for s in one.virtual_sources()] == [
            _source(s) for s in other.virtual_sources()
        ]
    return all(
        block.tobytes() == other[start : start + len(block)].tobytes()
        for start, block in reading.blocks(one)
    )


def _source(source: Any) -> tuple[Any, ...]:
    regions = (source.vspace.get_regular_hyperslab(), source.src_space.shape)
    return (source.file_name, source.dset_name, *regions)


def _plain(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Attributes without those that hold object references."""
    hidden = ("DIMENSION_LIST", "REFERENCE_LIST")
    names = [name for name in item.attrs if name not in hidden]
    # A scalar, all that the store writes; the others are not read, however large they are.
    return {name: item.attrs[name] if _is_scalar(item, name) else None for name in names}


def _is_scalar(item: h5py.Group | h5py.Dataset, name: str) -> bool:
    return item.attrs.get_id(name).shape == ()
