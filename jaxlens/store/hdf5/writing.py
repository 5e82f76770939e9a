"""The pieces that HDF5 images are made of: datasets, scales, labels; without a trace of time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.store import records
from jaxlens.store.hdf5 import buffers

Attributes = Mapping[str, int | str]

CHUNK_ROWS = 4096
CHUNK_BYTES = 4 << 20
"""A chunk has at most this many bytes, and at least one row."""

AXES = {
    "row": ("1", "index of the token in the token file"),
    "layer": ("1", "index of the residual stream, 0 the embedding"),
    "k": ("1", "place among the most probable tokens, 0 the most probable"),
    "m": ("1", "index of the followed token"),
    "quantity": ("", "name of the quantity"),
    "reference": ("", "token that a rank is of"),
    "ln_rank_bin": ("1", "bin of ln rank, from ln_rank_edge[i] up to ln_rank_edge[i + 1]"),
    "ln_rank_edge": ("1", "edges of the bins of ln rank"),
    "vocab": ("id", "token id"),
}
"""Unit and meaning of every axis."""


@contextlib.contextmanager
def new_file(buffer: buffers.Buffer) -> Generator[h5py.File]:
    """An HDF5 file in a buffer, whose image is complete when the block ends."""
    buffer.clear()
    # Not "latest": HDF5 1.10 must be able to read it. No cache of chunks, each is written once.
    with h5py.File(buffer, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
        yield file


def describe(file: h5py.File, title: str, attributes: Attributes, version: int) -> None:
    """Gives the root its attributes; the version is one of ``schema.FORMATS``."""
    fixed = {
        "Conventions": "CF-1.10",
        "title": title,
        "source": "jaxlens",
        "format_version": version,
    }
    for name, value in sorted((dict(attributes) | fixed).items()):
        file.attrs[name] = np.int64(value) if isinstance(value, int) else value


def new_group(file: h5py.File, name: str) -> h5py.Group:
    """A group without times, whatever the default of the h5py at hand."""
    plan = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    plan.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(file.id, name.encode(), gcpl=plan))


def dataset(group: h5py.Group, name: str, data: np.ndarray, compress: bool) -> h5py.Dataset:
    """A checksummed dataset.

    Raises:
        ValueError: The type cannot be stored.
    """
    item = empty(group, name, data.shape, data.dtype, compress)
    if data.size:
        item[...] = data
    return item


def empty(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype, compress: bool
) -> h5py.Dataset:
    """A checksummed dataset that is yet to be filled.

    Raises:
        ValueError: The type cannot be stored.
    """
    if dtype.kind not in "iufS" or not shape:
        raise ValueError(f"{name} cannot be stored: {dtype} {shape}")
    options: dict[str, Any] = {}
    if math.prod(shape):  # a chunk cannot be empty, and nothing needs no checksum
        options = {"chunks": chunk(shape, dtype), "fletcher32": True}
    if math.prod(shape) and compress:
        options |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    return group.create_dataset(name, shape, dtype, track_times=False, **options)


def scale(group: h5py.Group, axis: str, values: np.ndarray) -> h5py.Dataset:
    """A dimension scale with coordinates."""
    item = dataset(group, axis, values, compress=True)
    make_scale(item, axis)
    return item


def make_scale(item: h5py.Dataset, axis: str) -> None:
    """Turns a dataset into the scale of an axis."""
    item.make_scale(axis)
    explain(item, *AXES.get(axis, ("1", f"index of {axis}")))


def label_dataset(group: h5py.Group, name: str, labels: Sequence[str]) -> h5py.Dataset:
    """Short strings of fixed length, because those of variable length have no checksum."""
    item = dataset(group, name, np.array([s.encode() for s in labels], "S"), compress=True)
    item.attrs["_Encoding"] = "utf-8"  # xarray then gives str, not bytes
    return item


def explain(item: h5py.Dataset, unit: str, meaning: str) -> None:
    """Notes unit and meaning of a variable."""
    if unit:
        item.attrs["units"] = unit
    item.attrs["long_name"] = meaning


def attach(item: h5py.Dataset, axes: Sequence[str], scales: Mapping[str, h5py.Dataset]) -> None:
    """Attaches the scales of a variable's axes.

    Raises:
        ValueError: Their lengths differ.
    """
    for number, axis in enumerate(axes):
        if scales[axis].shape[0] != item.shape[number]:
            raise ValueError(
                f"{item.name} has {item.shape[number]} along {axis}, not {scales[axis].shape[0]}"
            )
        item.dims[number].attach_scale(scales[axis])


def virtual(
    file: h5py.File,
    name: str,
    dtype: np.dtype,
    tail: tuple[int, ...],
    entries: Sequence[records.Record],
    sources: Sequence[str],
    version: int = schema.FORMAT_VERSION,
) -> h5py.Dataset:
    """A dataset made of those of one name in other files.

    ``h5py.File.create_virtual_dataset`` would store the time.

    Args:
        file: Where it goes.
        name: Its name, here and in the sources.
        dtype: Its type.
        tail: Its shape beyond the rows.
        entries: How many rows each source has.
        sources: Files, relative to this one.
        version: One of ``schema.FORMATS``.
    """
    shape = (sum(entry.rows for entry in entries), *tail)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    plan.set_fill_value(_missing(name, dtype, version))
    at = 0
    for entry, source in zip(entries, sources, strict=True):
        if entry.rows == 0:
            continue
        whole = h5py.h5s.create_simple(shape)
        whole.select_hyperslab((at, *(0 for _ in tail)), (entry.rows, *tail))
        part = h5py.h5s.create_simple((entry.rows, *tail))
        plan.set_virtual(whole, source.encode(), name.encode(), part)
        at += entry.rows
    kind_id = h5py.h5t.py_create(dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind_id, space, dcpl=plan))


def chunk(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Shape of the chunks of a dataset."""
    row = math.prod(shape[1:]) * dtype.itemsize
    return (min(CHUNK_ROWS, shape[0], max(1, CHUNK_BYTES // row)), *shape[1:])


def _missing(name: str, dtype: np.dtype, version: int) -> np.ndarray:
    """What a row reads as where its source is gone: no rank, no id, no number."""
    known = schema.fill_value(name, dtype) if name in schema.QUANTITIES and version > 3 else None
    if known is not None:
        return np.array(known)
    kind = schema.QUANTITIES[name].kind if name in schema.QUANTITIES else "axis"
    value = {"float": np.nan, "id": np.iinfo(dtype).max if kind == "id" else 0}.get(kind, 0)
    return np.array(value, dtype)
