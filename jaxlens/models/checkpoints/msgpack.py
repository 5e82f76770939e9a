"""Flax's msgpack container, decoded with the limits that ``flax.serialization`` does not set."""

from __future__ import annotations

import math
import mmap
from typing import Any, BinaryIO

import jax.numpy as jnp
import msgpack
import numpy as np

from jaxlens.files import untrusted
from jaxlens.models.checkpoints import checks, layout

_NDARRAY = 1  # Flax's extension code of an array
_SCALAR = 3  # of a NumPy scalar
_CHUNKED = "__msgpack_chunked_array__"

# A thousand layers make maps of a thousand entries and 22,000 entries in all.
_LARGEST_MAP = 1024
_MOST_ENTRIES = 50_000
_LONGEST_KEY = 1024
_DEEPEST = 16


def unpack(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a file by their path, keys joined by ``/``.

    Raises:
        ValueError: The file is malformed, or holds something else than a tree of arrays.
        Exception: What ``msgpack`` raises for malformed files.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tree = msgpack.unpackb(
            data,
            ext_hook=_array,
            object_pairs_hook=_Names(),
            strict_map_key=True,
            max_array_len=0,
            max_map_len=_LARGEST_MAP,
            max_str_len=_LONGEST_KEY,
            max_bin_len=0,
        )
    if not isinstance(tree, dict):
        raise ValueError("not a tree of tensors")
    leaves = layout.flat(_join_chunks(tree))
    for name, value in leaves.items():
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{untrusted.shown(name)} is no tensor")
    return leaves


class _Names:
    """Makes the maps, and counts their entries: small ones cost far more memory than bytes."""

    def __init__(self) -> None:
        self._entries = 0

    def __call__(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._entries += len(pairs)
        if self._entries > _MOST_ENTRIES:
            raise ValueError(f"more than {_MOST_ENTRIES} entries")
        for key, _ in pairs:
            # A slash inside a key would make two different trees flatten to one.
            if not isinstance(key, str) or "/" in key:
                raise ValueError(f"key {str(key)[:80]!r} is not supported")
        return untrusted.unique(pairs)


def _array(code: int, data: bytes) -> np.ndarray:
    """Decodes Flax's array extension ``(shape, dtype name, bytes)`` and nothing else."""
    if code == _SCALAR:
        raise ValueError("a number by itself, as training states hold: save their params alone")
    if code != _NDARRAY:
        raise ValueError(f"extension type {code} is not supported")
    shape, name, buffer = msgpack.unpackb(
        data, raw=True, max_array_len=8, max_map_len=0, max_ext_len=0
    )
    dtype_name = name.decode("ascii")
    # An allow-list: object types would turn the bytes of the file into pointers.
    if dtype_name not in checks.DTYPES:
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
    if depth > _DEEPEST:
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
