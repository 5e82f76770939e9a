"""Files that hold weights: reading them as untrusted data, writing them; ``folders`` finds them.

Read are safetensors and Flax msgpack, whole or sharded by an index. Nothing here can execute
code from a file: msgpack extensions other than plain arrays are refused, and no declared size is
believed before it was compared with the bytes that are there.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization

from jaxlens import errors
from jaxlens.files import memory, untrusted
from jaxlens.models.checkpoints import layout, msgpack, stored_tensor

Format = Literal["safetensors", "msgpack", "orbax", "gguf"]

SINGLE: dict[str, str] = {"safetensors": "model.safetensors", "msgpack": "flax_model.msgpack"}
"""Name of the one file of each format, in the order in which they are looked for."""

INDEX = {fmt: f"{name}.index.json" for fmt, name in SINGLE.items()}
ORBAX = "orbax"
GGUF = "gguf"
FLAVOUR: dict[str, layout.Flavour] = {"safetensors": "torch", "msgpack": "flax", GGUF: "torch"}

# The header of a thousand layers has 1.8 MB, and parsing takes up to 14 times the text.
LARGEST_HEADER = 2 * 2**20
"""Bytes of the largest header of a safetensors file that is read."""

# Beyond what the tensors of a msgpack file can take: names, lengths, and room for a message that
# names the tensor where weights and config.json are of different small models.
_SLACK = 8 * 2**20
_AGAIN = "fetch the model again"
_ROOM = "check the free space and the permissions"
_LONGEST_NAME = 255  # of a file, on every system
_NUMPY_NAMES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    **{
        f"{kind[0].upper()}{bits}": f"{kind}{bits}"
        for kind in ("float", "int", "uint")
        for bits in (8, 16, 32, 64)
    },
}


class Found(NamedTuple):
    """Weights of a directory: their format and the file to start from."""

    format: Format
    file: str

    @property
    def is_index(self) -> bool:
        """Whether the file names shards."""
        return self.file.endswith(".index.json")


def tensors(
    directory: Path, weights: Found, label: str, expected: layout.Layout
) -> Iterator[stored_tensor.Tensor]:
    """Every tensor of a safetensors or msgpack checkpoint, under its own name.

    A tensor can be read until the next one is taken.

    Args:
        directory: Where the files are.
        weights: Which of them.
        label: What to call the directory.
        expected: Bounds what is read at once.

    Raises:
        MissingError: A shard is not there.
        DataError: A file is malformed, or the shards contradict their index.
    """
    read = {
        "safetensors": _read_safetensors,
        "msgpack": functools.partial(_read_msgpack, largest=_largest(expected)),
    }[weights.format]
    if not weights.is_index:
        yield from _read(read, directory / weights.file, label)
        return
    index = _read_index(directory / weights.file, label, SINGLE[weights.format])
    waiting = dict(index)
    shards = sorted(set(index.values()))
    _require_shards(directory, shards, label, weights.file)
    for name in shards:
        for tensor in _read(read, directory / name, label):
            if index.get(tensor.name) != name:
                stated = index.get(tensor.name, "no shard")
                raise errors.DataError(
                    f"{tensor.file}: tensor {untrusted.shown(tensor.name)} belongs to {stated} "
                    f"according to {weights.file}",
                    _AGAIN,
                )
            waiting.pop(tensor.name, None)
            yield tensor
    for name, shard in waiting.items():
        raise errors.DataError(
            f"{label}/{shard}: tensor {untrusted.shown(name)} is missing", _AGAIN
        )


def write(path: Path, fmt: str, named: Iterator[tuple[str, np.ndarray]]) -> None:
    """Writes one weights file, whole or not at all.

    Raises:
        StorageError: The operating system refused.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        if fmt == "safetensors":
            contiguous = {name: np.ascontiguousarray(value) for name, value in named}
            # Readers of PyTorch checkpoints look for this entry.
            safetensors.numpy.save_file(contiguous, partial, metadata={"format": "pt"})
            partial.chmod(mode)  # the library's file is for its owner alone
        else:
            partial.write_bytes(serialization.msgpack_serialize(layout.nested(dict(named))))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise errors.StorageError(f"{path.name}: {error.strerror}", _ROOM) from error
    except safetensors.SafetensorError as error:
        raise errors.StorageError(f"{path.name}: could not be written", _ROOM) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _read(
    read: Callable[[Path, str], Iterator[stored_tensor.Tensor]], path: Path, label: str
) -> Iterator[stored_tensor.Tensor]:
    where = f"{label}/{path.name}"
    with _refusals(where):
        yield from read(path, where)


@contextlib.contextmanager
def _refusals(where: str) -> Generator[None]:
    """Whatever a library makes of a damaged file becomes one clean error."""
    try:
        yield
    except errors.JaxlensError:
        raise
    except OSError as error:
        memory.reraise(error)
        raise errors.StorageError(
            f"{where}: {error.strerror or untrusted.line(error)}", untrusted.READABLE
        ) from error
    except Exception as error:
        memory.reraise(error)
        raise errors.DataError(
            f"{where}: damaged or not what its name says ({untrusted.line(error)})",
            _AGAIN,
        ) from error


def _read_safetensors(path: Path, where: str) -> Iterator[stored_tensor.Tensor]:
    with untrusted.opened(path, where) as raw:
        size = int.from_bytes(raw.read(8), "little")
    if size > LARGEST_HEADER:
        raise errors.DataError(
            f"{where}: a header of {size} bytes, at most {LARGEST_HEADER}", _AGAIN
        )
    # The library compares all offsets with the file's size.
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            part = file.get_slice(name)
            kind = _NUMPY_NAMES.get(part.get_dtype(), part.get_dtype())

            # Opened for each part, or all that was read would stay mapped beside its copy.
            def rows(chosen: slice, name: str = name) -> np.ndarray:
                with _refusals(where), safetensors.safe_open(path, framework="numpy") as fresh:
                    return fresh.get_slice(name)[chosen]

            def value(name: str = name) -> np.ndarray:
                with _refusals(where), safetensors.safe_open(path, framework="numpy") as fresh:
                    return fresh.get_tensor(name)

            yield stored_tensor.Tensor(name, kind, tuple(part.get_shape()), value, where, rows)


def _read_msgpack(path: Path, where: str, largest: int) -> Iterator[stored_tensor.Tensor]:
    with untrusted.opened(path, where) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise errors.DataError(
                f"{where}: {size} bytes, and no model of this config.json has over {largest}",
                "weights and config.json are of different models",
            )
        leaves = msgpack.unpack(file)
    while leaves:  # each tensor is freed once it has been taken
        name, value = leaves.popitem()
        yield stored_tensor.of_array(name, value, where)


def _largest(expected: layout.Layout) -> int:
    """Bytes that no msgpack file of an architecture exceeds, as float64."""
    return _SLACK + 8 * expected.count()


def _require_shards(directory: Path, shards: list[str], label: str, index: str) -> None:
    """Refuses a checkpoint with missing shards before the first of the others is read."""
    absent = [name for name in shards if _leads_nowhere(directory / name)]
    if absent:
        raise errors.MissingError(
            f"{label}/{absent[0]}: no such file; {len(absent)} of the {len(shards)} files that "
            f"{index} names cannot be found",
            f"fetch the rest of the model: {untrusted.listed(absent)}",
        )


def _leads_nowhere(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:  # others are told where the file is opened
        return isinstance(error, FileNotFoundError)
    return False


def _read_index(path: Path, label: str, single: str) -> dict[str, str]:
    """The ``weight_map`` of an index, whose shards all lie beside it."""
    where = f"{label}/{path.name}"
    index = untrusted.read_json(path, label)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise errors.DataError(f"{where}: no weight_map", _AGAIN)
    suffix = Path(single).suffix
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.isprintable() or len(shard) > _LONGEST_NAME:
            raise errors.DataError(
                f"{where}: the shard of {untrusted.shown(tensor)} is no file name", _AGAIN
            )
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(suffix):
            raise errors.DataError(
                f"{where}: shard {shard[:200]!r} is no {suffix} file in the model's directory",
                _AGAIN,
            )
    return weight_map
