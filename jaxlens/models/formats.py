"""Files that hold weights: which are there, reading them as untrusted data, writing them.

Read are safetensors and Flax msgpack, whole or sharded by an index. Nothing here can execute
code from a file: pickles are refused by name, msgpack extensions other than plain arrays too,
and no declared size is believed before it was compared with the bytes that are there.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import msgpack
import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization

from jaxlens import errors
from jaxlens.models import layout, stack

Format = Literal["safetensors", "msgpack", "orbax"]

SINGLE: dict[str, str] = {"safetensors": "model.safetensors", "msgpack": "flax_model.msgpack"}
"""Name of the one file of each format, in the order in which they are looked for."""

INDEX = {fmt: f"{name}.index.json" for fmt, name in SINGLE.items()}
ORBAX = "orbax"
FLAVOUR: dict[str, layout.Flavour] = {"safetensors": "torch", "msgpack": "flax"}

_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_LARGEST_JSON = 64 * 2**20
_NDARRAY = 1  # Flax's extension code of an array
_CHUNKED = "__msgpack_chunked_array__"


class Found(NamedTuple):
    """Weights of a directory: their format and the file to start from."""

    format: Format
    file: str

    @property
    def is_index(self) -> bool:
        """Whether the file names shards."""
        return self.file.endswith(".index.json")


def find(directory: Path, label: str) -> Found:
    """The weights of a model directory: safetensors, else msgpack, else Orbax.

    Raises:
        MissingError: There are none.
        DataError: There are only pickles.
    """
    for fmt in SINGLE:
        for name in (SINGLE[fmt], INDEX[fmt]):
            if (directory / name).is_file():
                return Found(fmt, name)  # type: ignore[arg-type]
    if (directory / ORBAX).is_dir():
        return Found("orbax", ORBAX)
    pickled = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise errors.DataError(
            f"{label}: {pickled[0]} is a pickle, which can run code, and is never read",
            "convert it where you trust it: transformers' "
            "GPT2LMHeadModel.from_pretrained(DIR).save_pretrained(NEW) writes safetensors",
        )
    names = [name for fmt in SINGLE for name in (SINGLE[fmt], INDEX[fmt])]
    raise errors.MissingError(f"{label}: no weights", f"looked for {', '.join(names)} and {ORBAX}/")


def read_json(path: Path, label: str) -> Any:
    """A JSON file, in which a key that is there twice is an error.

    Raises:
        MissingError: The file is not there.
        DataError: It is not JSON.
    """
    where = f"{label}/{path.name}"
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise errors.DataError(f"{where}: too large to be what its name says")
        return json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise errors.MissingError(f"{where}: no such file") from None
    except OSError as error:
        raise errors.StorageError(f"{where}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise errors.DataError(f"{where}: not valid JSON ({_line(error)})") from error


def tensors(directory: Path, found: Found, label: str) -> Iterator[stack.Tensor]:
    """Every tensor of a safetensors or msgpack checkpoint, under its own name.

    Raises:
        MissingError: A shard is not there.
        DataError: A file is malformed, or the shards contradict their index.
    """
    read = {"safetensors": _read_safetensors, "msgpack": _read_msgpack}[found.format]
    if not found.is_index:
        yield from _read(read, directory / found.file, label)
        return
    index = _read_index(directory / found.file, label, SINGLE[found.format])
    waiting = dict(index)
    for name in sorted(set(index.values())):
        for tensor in _read(read, directory / name, label):
            if index.get(tensor.name) != name:
                stated = index.get(tensor.name, "no shard")
                raise errors.DataError(
                    f"{tensor.file}: tensor {tensor.name[:200]} belongs to {stated} "
                    f"according to {found.file}"
                )
            waiting.pop(tensor.name, None)
            yield tensor
    for name, shard in waiting.items():
        raise errors.DataError(f"{label}/{shard}: tensor {name} is missing")


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
        raise errors.StorageError(f"{path.name}: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise errors.StorageError(f"{path.name}: could not be written") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _read(
    read: Callable[[Path, str], Iterator[stack.Tensor]], path: Path, label: str
) -> Iterator[stack.Tensor]:
    """Runs a reader; whatever its library makes of a damaged file becomes one clean error."""
    where = f"{label}/{path.name}"
    if not path.is_file():
        raise errors.MissingError(f"{where}: no such file")
    try:
        yield from read(path, where)
    except (errors.JaxlensError, MemoryError):
        raise
    except OSError as error:
        raise errors.StorageError(f"{where}: {error.strerror or _line(error)}") from error
    except Exception as error:
        raise errors.DataError(
            f"{where}: damaged or not what its name says ({_line(error)})"
        ) from error


def _read_safetensors(path: Path, where: str) -> Iterator[stack.Tensor]:
    # The library itself bounds the header and compares all offsets with the file's size.
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            yield stack.Tensor(name, file.get_tensor(name), where)


def _read_msgpack(path: Path, where: str) -> Iterator[stack.Tensor]:
    """Flax's container, decoded with the limits that ``flax.serialization`` does not set."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tree = msgpack.unpackb(
            data,
            ext_hook=_unpack_array,
            object_pairs_hook=_unique_names,
            strict_map_key=True,
            max_array_len=0,
        )
    if not isinstance(tree, dict):
        raise ValueError("not a tree of tensors")
    leaves = layout.flat(_join_chunks(tree))
    del tree  # each tensor is freed once it has been taken
    while leaves:
        name, value = leaves.popitem()
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{name[:200]} is no tensor")
        yield stack.Tensor(name, value, where)


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    """Decodes Flax's array extension ``(shape, dtype name, bytes)`` and nothing else."""
    if code != _NDARRAY:
        raise ValueError(f"extension type {code} is not supported")
    shape, name, buffer = msgpack.unpackb(
        data, raw=True, max_array_len=8, max_map_len=0, max_ext_len=0
    )
    dtype_name = name.decode("ascii")
    # An allow-list: object types would turn the bytes of the file into pointers.
    if dtype_name not in stack.DTYPES:
        raise ValueError(f"a tensor has dtype {dtype_name[:40]}")
    dtype = np.dtype(jnp.bfloat16 if dtype_name == "bfloat16" else dtype_name)
    if not isinstance(buffer, bytes) or _count(shape) * dtype.itemsize != len(buffer):
        raise ValueError("a tensor's shape and size disagree")
    return np.frombuffer(buffer, dtype).reshape(shape)


def _count(shape: Any) -> int:
    """Number of elements of a declared shape."""
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("a tensor's shape is malformed")
    return math.prod(shape)


def _join_chunks(tree: dict[str, Any], depth: int = 0) -> Any:
    """Joins the arrays that Flax stores in pieces of 2**30 bytes."""
    if depth > 16:
        raise ValueError("nested too deeply")
    if _CHUNKED not in tree:
        return {
            key: _join_chunks(value, depth + 1) if isinstance(value, dict) else value
            for key, value in tree.items()
        }
    shape = [tree["shape"][str(i)] for i in range(len(tree["shape"]))]
    chunks = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
    if _count(shape) != sum(chunk.size for chunk in chunks):
        raise ValueError("a tensor's shape and chunks disagree")
    return np.concatenate(chunks).reshape(shape)


def _read_index(path: Path, label: str, single: str) -> dict[str, str]:
    """The ``weight_map`` of an index, whose shards all lie beside it."""
    where = f"{label}/{path.name}"
    index = read_json(path, label)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise errors.DataError(f"{where}: no weight_map")
    suffix = Path(single).suffix
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.isprintable():
            raise errors.DataError(f"{where}: the shard of {tensor[:200]} is no file name")
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(suffix):
            raise errors.DataError(
                f"{where}: shard {shard[:200]!r} is no {suffix} file in the model's directory"
            )
    return weight_map


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice[:200]!r} is there twice")
    return mapping


def _unique_names(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    for key, _ in pairs:
        # A slash inside a key would make two different trees flatten to one.
        if not isinstance(key, str) or "/" in key:
            raise ValueError(f"key {str(key)[:80]!r} is not supported")
    return _unique(pairs)


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
