"""Opening untrusted HDF5 files.

No file is opened before its hash is compared, since HDF5 can crash on damaged bytes. Every error of
h5py becomes a `DataError`. Before a byte of a dataset is read, `structure` checks the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import h5py.h5l
import h5py.h5o
import numpy as np

from jaxlens import errors
from jaxlens.files import closing, contained, memory
from jaxlens.store.hdf5 import structure

SEAL_BYTES = 65

BLOCK_BYTES = 2 << 20
"""Most bytes that a block holds; several threads hold one each."""


MAX_LABEL_BYTES = 1 << 16


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
    """A concurrent writer replaced the file after it was hashed and before it was opened."""


@contextlib.contextmanager
def reading(name: str | Path) -> Generator[None]:
    """Turns the errors of h5py into a `DataError` that names the file."""
    try:
        yield
    except errors.JaxlensError:
        raise
    except _H5PY_ERRORS as error:
        memory.reraise(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise errors.DataError(f"{name} is damaged: {reason}", _HINT) from error


@dataclass(frozen=True, eq=False)
class Contents(closing.Closing):
    """An open file whose structure was checked; also a context manager.

    Attributes:
        file: The root.
        datasets: Every dataset at the root and one level below, by its path without the first
            slash.
    """

    file: h5py.File
    datasets: dict[str, h5py.Dataset]

    def close(self) -> None:
        """Closes the file.

        Raises:
            DataError: HDF5 lost count of what was open, as it may where metadata is forged.
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
        descriptor: Of the same file, from `contained.opened`; the file that was hashed there is
            the one that is opened here.
        virtual: Whether virtual datasets are allowed.

    Raises:
        Replaced: The path now leads to another file than the descriptor.
        DataError: Damaged, or built to harm.
    """
    with reading(path):
        # No cache of chunks: HDF5 2.0 keeps 8 MiB of every dataset that was ever read.
        file = h5py.File(path, "r", driver="sec2", rdcc_nbytes=0)
        try:
            if not os.path.sameopenfile(file.id.get_vfd_handle(), descriptor):
                raise Replaced(f"{path} was replaced while it was opened", _HINT)
            return Contents(file, structure.datasets(file, virtual))
        except BaseException:
            file.close()
            raise


def open_sealed(path: Path, virtual: bool = False) -> Contents:
    """Opens a file that ends with `seal`, after comparing it.

    Raises:
        MissingError: It does not exist.
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

    HDF5 ignores what follows the end of a file, but may crash on a damaged one: not all of its
    metadata has checksums. Shards have their records; files without one are sealed.
    """
    return bytes(image) + _seal(hashlib.sha256(image).hexdigest())


def open_image(data: bytes | memoryview, virtual: bool = False) -> Contents:
    """Opens an image in RAM."""
    file = h5py.File(io.BytesIO(data), "r")
    return Contents(file, structure.datasets(file, virtual))


def blocks(dataset: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """The dataset in bounded pieces along its first axis, each with its start."""
    row = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    step = max(1, BLOCK_BYTES // row)
    for start in range(0, dataset.shape[0], step):
        yield start, dataset[start : start + step]


def whole(dataset: h5py.Dataset, limit: int) -> np.ndarray:
    """All of a dataset of at most ``limit`` bytes."""
    if dataset.size * dataset.dtype.itemsize > limit:
        raise ValueError(f"{dataset.name} has {dataset.shape} elements, more than {limit} bytes")
    return dataset[()]


def labels(dataset: h5py.Dataset) -> tuple[str, ...]:
    """A dataset of short strings."""
    return tuple(label.decode("utf-8") for label in whole(dataset, MAX_LABEL_BYTES))


def read_arrays(
    path: str | Path, sha256: str | None = None, limit: int = structure.MAX_DATASET_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, int | str]]:
    """Reads what `images.arrays_image` made.

    Args:
        path: File.
        sha256: Its hash; None where the caller has compared it.
        limit: Most bytes that all arrays together can have.

    Returns:
        Arrays (without the indices of their axes) and attributes.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    path = Path(path)
    with contained.opened(path) as descriptor, reading(path):
        if sha256 is not None and contained.sha256(path, descriptor) != sha256:
            raise ValueError("its sha256 is not that recorded")
        with open_file(path, descriptor) as contents:
            stored = {name: item for name, item in contents.datasets.items() if not item.is_scale}
            claimed = sum(item.size * item.dtype.itemsize for item in stored.values())
            if claimed > limit:
                raise ValueError(f"it claims {claimed} bytes, at most {limit} make sense")
            arrays = {name: whole(item, limit) for name, item in stored.items()}
            return arrays, {name: contents.attribute(name) for name in contents.file.attrs}


def _seal(sha256: str) -> bytes:
    return sha256.encode() + b"\n"


def _read_seal(path: Path, descriptor: int, at: int) -> bytes:
    with contained.reading(path):
        return os.pread(descriptor, SEAL_BYTES, at)
