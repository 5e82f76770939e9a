"""Opening HDF5 files that nobody vouches for.

No file is opened before its hash was compared, since HDF5 can crash on damaged bytes. Every h5py
error becomes a `DataError`. Before a byte of a dataset is read, the file's structure is checked:
no links but hard ones, no external or virtual storage, no filter but those that the store writes,
and no dataset that claims far more than the file can hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import h5py.h5l
import h5py.h5o
import numpy as np

from jaxlens import errors
from jaxlens.files import contained, memory

SEAL_BYTES = 65

BLOCK_BYTES = 2 << 20
"""Most bytes that a block holds; several threads hold one each."""

MAX_CHUNK_BYTES = 8 << 20
"""Most bytes of a chunk, and of all that lies at one place of the first axis."""

MAX_LABEL_BYTES = 1 << 16
MAX_DATASET_BYTES = 1 << 38
MAX_OBJECTS = 1000
MAX_OTHER_BYTES = 16 << 20
"""Most bytes of a file beside its data: HDF5 holds an attribute in RAM, whatever its size."""

MAX_RATIO = 1100
"""Deflate cannot expand further, so a greater ratio is not data."""

_SOURCE = re.compile(r"shards/part-\d{5,9}\.h5")
"""What a virtual dataset may be made of: no path that leads out, no pattern to be searched."""

_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_STORED = frozenset({h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED})
_H5PY_ERRORS = (
    SystemError,  # where forged metadata makes HDF5 fail without saying why
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
)
_REBUILD = "rebuild it with jaxlens finalize"
_HINT = "jaxlens verify names what is damaged, jaxlens repair recomputes it"


def library_version() -> str:
    """Version of the HDF5 library itself."""
    return h5py.version.hdf5_version


class Replaced(errors.DataError):
    """Between hashing and opening, a file was replaced; a rival writer may do that."""


@contextlib.contextmanager
def reading(name: str | Path) -> Generator[None]:
    """Turns whatever h5py raises into a `DataError` that names the file."""
    try:
        yield
    except errors.JaxlensError:
        raise
    except _H5PY_ERRORS as error:
        memory.reraise(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise errors.DataError(f"{name} is damaged: {reason}", _HINT) from error


@dataclass(frozen=True, eq=False)
class Contents:
    """An open file whose structure was checked; also a context manager.

    Attributes:
        file: The root.
        datasets: Every dataset at the root and one level below, by its path without the first
            slash.
    """

    file: h5py.File
    datasets: dict[str, h5py.Dataset]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file.

        Raises:
            DataError: HDF5 has lost count of what was open, as it may where metadata is forged.
        """
        if self.file:
            with reading(self.file.filename):
                self.file.close()

    def attribute(self, name: str) -> int | str:
        """A scalar attribute of the root.

        Raises:
            ValueError: It is something else.
        """
        attributes = self.file.attrs
        value = attributes[name] if attributes.get_id(name).shape == () else None
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, str):
            return value
        raise ValueError(f"attribute {name} makes no sense")


def open_file(path: Path, descriptor: int, virtual: bool = False) -> Contents:
    """Opens a file and checks its structure.

    Args:
        path: File.
        descriptor: Of the same file, by `access.opened`; whatever was hashed there is what is
            opened here.
        virtual: Whether virtual datasets are allowed.

    Raises:
        Replaced: The path is not that of the descriptor any more.
        DataError: Damaged, or built to harm.
    """
    with reading(path):
        # No cache of chunks: HDF5 2.0 keeps 8 MiB of every dataset that was ever read.
        file = h5py.File(path, "r", driver="sec2", rdcc_nbytes=0)
        try:
            if not os.path.sameopenfile(file.id.get_vfd_handle(), descriptor):
                raise Replaced(f"{path} was replaced while it was opened", _HINT)
            return Contents(file, _datasets(file, virtual))
        except BaseException:
            file.close()
            raise


def open_sealed(path: Path, virtual: bool = False) -> Contents:
    """Opens a file that ends with `seal`, after comparing it.

    Raises:
        MissingError: It is not there.
        DataError: Damaged, or built to harm.
    """
    with contained.opened(path) as descriptor:
        end = os.fstat(descriptor).st_size - SEAL_BYTES
        if end < 0 or _read_seal(path, descriptor, end) != _seal(
            contained.sha256(path, descriptor, end)
        ):
            raise errors.DataError(f"{path} is damaged: its checksum differs", _REBUILD)
        return open_file(path, descriptor, virtual)


def seal(image: bytes | memoryview) -> bytes:
    """Appends the sha256 of an image, in hexadecimal.

    HDF5 does not mind what follows the end of a file, but it may crash on a damaged one: not all
    of its metadata has checksums. Shards have their records; files without one are sealed.
    """
    return bytes(image) + _seal(hashlib.sha256(image).hexdigest())


def open_image(data: bytes | memoryview, virtual: bool = False) -> Contents:
    """Opens an image in RAM."""
    file = h5py.File(io.BytesIO(data), "r")
    return Contents(file, _datasets(file, virtual))


def blocks(dataset: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """The dataset in bounded pieces along its first axis, each with its start."""
    row = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    step = max(1, BLOCK_BYTES // row)
    for start in range(0, dataset.shape[0], step):
        yield start, dataset[start : start + step]


def whole(dataset: h5py.Dataset, limit: int) -> np.ndarray:
    """All of a dataset that makes sense in RAM."""
    if dataset.size * dataset.dtype.itemsize > limit:
        raise ValueError(f"{dataset.name} has {dataset.shape} elements, too many to make sense")
    return dataset[()]


def labels(dataset: h5py.Dataset) -> tuple[str, ...]:
    """A dataset of short strings."""
    return tuple(label.decode("utf-8") for label in whole(dataset, MAX_LABEL_BYTES))


def read_arrays(
    path: str | Path, sha256: str | None = None, limit: int = MAX_DATASET_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, int | str]]:
    """Reads what `image.arrays_image` made.

    Args:
        path: File.
        sha256: Its hash; None where the caller has compared it.
        limit: Most bytes that all arrays together can have.

    Returns:
        Arrays (without the indices of their axes) and attributes.

    Raises:
        MissingError: It is not there.
        DataError: It is damaged.
    """
    path = Path(path)
    with contained.opened(path) as descriptor, reading(path):
        if sha256 is not None and contained.sha256(path, descriptor) != sha256:
            raise ValueError("its sha256 is not that recorded")
        with open_file(path, descriptor) as found:
            stored = {name: item for name, item in found.datasets.items() if not item.is_scale}
            claimed = sum(item.size * item.dtype.itemsize for item in stored.values())
            if claimed > limit:
                raise ValueError(f"it claims {claimed} bytes, at most {limit} make sense")
            arrays = {name: whole(item, limit) for name, item in stored.items()}
            return arrays, {name: found.attribute(name) for name in found.file.attrs}


def _seal(sha256: str) -> bytes:
    return sha256.encode() + b"\n"


def _read_seal(path: Path, descriptor: int, at: int) -> bytes:
    with contained.refusals(path):
        return os.pread(descriptor, SEAL_BYTES, at)


def _datasets(file: h5py.File, virtual: bool) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    stored, size = 0, file.id.get_filesize()
    for name, item in _items(file.id):
        if not isinstance(item, h5py.h5d.DatasetID):
            raise ValueError(f"{name} is no dataset")
        stored += _check(name, item, virtual)
        found[name] = h5py.Dataset(item, readonly=True)
        # A dataset of many names, or chunks of one address, would be read again and again.
        if len(found) > MAX_OBJECTS or stored > size:
            raise ValueError("it has more or larger datasets than the file can hold")
    if size - stored > MAX_OTHER_BYTES:
        raise ValueError(f"{size - stored} of its bytes are no data")
    return found


def _items(root: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID]]:
    """All that lies at the root or one level below."""
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
