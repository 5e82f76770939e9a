"""The structure of an HDF5 file, checked before a byte of a dataset is read.

Allowed are hard links only, no external storage, no virtual datasets but those of an index, no
filter but those that the store writes, and no dataset that claims far more than the file can hold.
``tests/store/test_hostile.py`` builds a file for each of these; ``test_h5py_alone_...`` in it shows
that h5py reads other files and fills memory with data that the file does not hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import h5py
import h5py.h5l
import h5py.h5o

MAX_CHUNK_BYTES = 8 << 20
"""Most bytes of a chunk, and of one element of the first axis."""

MAX_DATASET_BYTES = 1 << 38

MAX_OBJECTS = 1000

MAX_OTHER_BYTES = 16 << 20
"""Most bytes of a file beside its data: HDF5 holds an attribute in RAM, whatever its size."""

MAX_RATIO = 1100
"""Deflate cannot expand further, so a greater ratio is not data."""

_SOURCE = re.compile(r"shards/part-\d{5,9}\.h5")
"""Sources of a virtual dataset: neither a path that leads out nor a pattern to be searched."""

_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})

_STORED = frozenset({h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED})


def datasets(file: h5py.File, virtual: bool) -> dict[str, h5py.Dataset]:
    """The datasets at the root and one level below, by their path, all of them checked.

    Args:
        file: Open file.
        virtual: Whether virtual datasets are allowed.

    Raises:
        ValueError: The file holds what the store does not write.
    """
    checked: dict[str, h5py.Dataset] = {}
    stored, size = 0, file.id.get_filesize()
    for name, item in _items(file.id):
        if not isinstance(item, h5py.h5d.DatasetID):
            raise ValueError(f"{name} is not a dataset")
        stored += _check(name, item, virtual)
        checked[name] = h5py.Dataset(item, readonly=True)
        # A dataset of many names, or chunks of one address, would be read again and again.
        if len(checked) > MAX_OBJECTS or stored > size:
            raise ValueError("it has more or larger datasets than the file can hold")
    if size - stored > MAX_OTHER_BYTES:
        raise ValueError(f"{size - stored} of its bytes are not data")
    return checked


def _items(root: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID]]:
    """All objects at the root and one level below."""
    for name, item in _children(root):
        if isinstance(item, h5py.h5g.GroupID) and len(item):
            yield from ((f"{name}/{inner}", below) for inner, below in _children(item))
        else:
            yield name, item


def _children(
    group: h5py.h5g.GroupID,
) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID]]:
    """Identifiers only, which take three quarters of the time of h5py's own objects."""
    if len(group) > MAX_OBJECTS:
        raise ValueError(f"{len(group)} objects in one group")
    for raw in group:
        name = raw.decode("utf-8")
        if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{name} is a link")
        yield name, h5py.h5o.open(group, raw)


def _check(name: str, dataset: h5py.h5d.DatasetID, virtual: bool) -> int:
    """Refuses what the store does not write; returns the bytes that are stored."""
    plan = dataset.get_create_plist()
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL and virtual:
        _check_sources(name, plan)
        return 0
    if layout not in _STORED or plan.get_external_count():
        raise ValueError(f"{name} is stored outside the file")
    if not {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} <= _FILTERS:
        raise ValueError(f"{name} has a filter that the store does not write")
    dtype, shape = dataset.dtype, dataset.shape
    if dtype.kind not in "iufS" or not shape:
        raise ValueError(f"{name} has a type that the store does not write")
    stored, claimed = dataset.get_storage_size(), math.prod(shape) * dtype.itemsize
    if claimed > min(MAX_DATASET_BYTES, MAX_RATIO * stored):
        raise ValueError(f"{name} claims {claimed} bytes, the file holds {stored} of them")
    chunk = plan.get_chunk() if layout == h5py.h5d.CHUNKED else ()
    if math.prod(chunk) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise ValueError(f"{name} has chunks of {chunk}")
    if math.prod(shape[1:]) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise ValueError(f"{name} has rows of {shape[1:]}")
    return stored


def _check_sources(name: str, plan: h5py.h5p.PropDCID) -> None:
    """Refuses sources elsewhere, and those that HDF5 must open to know their number."""
    for i in range(plan.get_virtual_count()):
        selection = plan.get_virtual_vspace(i)
        endless = not selection.is_regular_hyperslab() or any(
            h5py.h5s.UNLIMITED in axis for axis in selection.get_regular_hyperslab()
        )
        if endless or not _SOURCE.fullmatch(plan.get_virtual_filename(i)):
            raise ValueError(f"{name} is made of other files than the shards")
