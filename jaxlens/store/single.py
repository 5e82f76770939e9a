"""All rows of a run in one HDF5 file, for tools that read one file and runs without an index."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from jaxlens import schema
from jaxlens.files import publish, system
from jaxlens.store import lazy_column, reader
from jaxlens.store.hdf5 import draft, variables, writing

BATCH_BYTES = 32 << 20
"""Rows that are held at once."""

_MARGIN_BYTES = 1 << 20
"""Space for scales and checksums, beside a share of the rows."""


def write(
    run: reader.Run,
    path: str | Path,
    names: Sequence[str],
    layers: Sequence[int],
    start: int,
    stop: int,
    disk: system.Disk = system.DISK,
) -> int:
    """Writes rows as they are stored in a shard: the same names, types, scales and checksums.

    Images are built in RAM because HDF5 promises nothing about a file that was not closed, and
    dies on a full disk. This file may be too large for that, and it needs less: nobody resumes
    it. It goes to a temporary file that is closed, synced and then named, through a
    `draft.Draft`, so that HDF5 never hears of a full disk.

    Args:
        run: Where the rows come from.
        path: File to create.
        names: Quantities.
        layers: Numbers of the layers.
        start: First row.
        stop: End of the rows, exclusive.
        disk: System calls.

    Returns:
        Bytes of the file.

    Raises:
        ConfigError: The file exists.
        DataError: A shard is damaged.
        StorageError: There is no space, or the system refused.
    """
    row_bytes = sum(_row_bytes(run[name], layers) for name in names)
    needed = (stop - start) * row_bytes
    publish.check_space(Path(path).absolute(), needed + needed // 64 + _MARGIN_BYTES, disk)
    with publish.file_descriptor(path, disk, replace=False) as descriptor:
        file = draft.Draft(path, descriptor, disk)
        with _new_file(file, max(_chunk_bytes(run[name], layers) for name in names)) as root:
            datasets = _begin(root, run, names, layers, start, stop)
            for _ in _fill(datasets, run, layers, start, stop, max(1, BATCH_BYTES // row_bytes)):
                file.check()
        file.check()
        return file.seek(0, 2)


@contextlib.contextmanager
def _new_file(file: draft.Draft, cache: int) -> Generator[h5py.File]:
    # Shards end amid a chunk, which waits in the cache for its other rows: one of each dataset.
    version = ("v110", "v110")
    with h5py.File(file, "w", libver=version, rdcc_nbytes=cache, rdcc_w0=1.0) as root:
        yield root


def _begin(
    root: h5py.File,
    run: reader.Run,
    names: Sequence[str],
    layers: Sequence[int],
    start: int,
    stop: int,
) -> dict[str, h5py.Dataset]:
    """Everything but the rows; the datasets that they and their numbers go to."""
    about = {"spec_hash": run.spec_hash, "n_rows": stop - start, "n_tokens": run.n_tokens}
    writing.describe(root, "Logit lens, rows of a run", about, schema.FORMAT_VERSION)
    shapes = {name: _shape(run[name], layers) for name in names}
    sizes = [
        dict(zip(run[name].quantity.axes[1:], shape, strict=True)) for name, shape in shapes.items()
    ]
    labels = [run.layer_names[layer] for layer in layers]
    scales = variables.row_scales(root, sizes, labels, layers)
    numbers = writing.empty(root, "row", (stop - start,), np.dtype(np.int64), compress=True)
    writing.make_scale(numbers, "row")
    scales["row"], datasets = numbers, {"row": numbers}
    for name, shape in shapes.items():
        full = (stop - start, *shape)
        datasets[name] = writing.empty(root, name, full, run[name].stored, compress=False)
        variables.explain_quantity(datasets[name], name, scales)
    return datasets


def _fill(
    datasets: dict[str, h5py.Dataset],
    run: reader.Run,
    layers: Sequence[int],
    start: int,
    stop: int,
    max_rows: int,
) -> Iterator[None]:
    """Writes the rows; pauses after each block."""
    all_layers = list(layers) == list(range(len(run.layer_names)))
    for batch in run.batches([name for name in datasets if name in run], max_rows, start, stop):
        numbers = batch.pop("row")
        low = int(numbers[0]) - start
        datasets["row"][low : low + len(numbers)] = numbers
        for name, block in batch.items():
            item, quantity = datasets[name], run[name].quantity
            if "layer" in quantity.axes and not all_layers:
                block = block[:, layers]
            item[low : low + len(block)] = lazy_column.unsigned(quantity, block, item.dtype)
            yield


def _shape(column: lazy_column.Column, layers: Sequence[int]) -> tuple[int, ...]:
    if "layer" not in column.quantity.axes:
        return column.shape[1:]
    return (len(layers), *column.shape[2:])


def _chunk_bytes(column: lazy_column.Column, layers: Sequence[int]) -> int:
    shape = writing.chunk((writing.CHUNK_ROWS, *_shape(column, layers)), column.stored)
    return math.prod(shape) * column.stored.itemsize


def _row_bytes(column: lazy_column.Column, layers: Sequence[int]) -> int:
    return math.prod(_shape(column, layers)) * column.stored.itemsize
