"""Header of a GGUF file: its metadata, and where its tensors lie; read as untrusted data.

A header states how many entries, characters and bytes follow. No statement is believed before it
was compared with what the file still holds.

Reference: the specification of GGUF, ``docs/gguf.md`` in github.com/ggml-org/ggml.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxlens import errors
from jaxlens.files import untrusted

MAGIC = b"GGUF"
SUFFIX = ".gguf"
VERSIONS = (2, 3)

# Vocabularies of 262,144 tokens take 8 MiB.
LARGEST_HEADER = 64 * 2**20
"""Bytes of the largest header that is read."""

_MOST_ENTRIES = 100_000
_MOST_ELEMENTS = 2**21  # of all arrays together
_MOST_AXES = 4
_LARGEST_ALIGNMENT = 2**20
_AGAIN = "fetch the model again"

_NUMBERS = {
    **{0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4"},
    **{6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"},
}
_STRING, _ARRAY = 8, 9


class TensorInfo(NamedTuple):
    """What the header says of a tensor.

    Attributes:
        shape: The axis whose entries lie side by side comes last.
        type: Number of the type of its values.
        offset: Of its first byte, in the file.
        room: Bytes from there to the end of the file.
    """

    shape: tuple[int, ...]
    type: int
    offset: int
    room: int


class Header(NamedTuple):
    """A header.

    Attributes:
        metadata: Arrays of numbers are NumPy's; arrays of strings are lists, and only there where
            they were asked for.
        tensors: By name, in the order of the file.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]


class _Source:
    """An open file from which nothing is taken that it does not hold."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.file, self.where = file, where
        self.size = os.fstat(file.fileno()).st_size
        self.left = min(self.size, LARGEST_HEADER)
        self.elements = _MOST_ELEMENTS

    def damaged(self, reason: str) -> errors.DataError:
        return errors.DataError(f"{self.where}: damaged GGUF header: {reason}", _AGAIN)

    def take(self, count: int) -> bytes:
        if count > self.left:
            if self.size > LARGEST_HEADER:
                raise self.damaged(f"it has over {LARGEST_HEADER} bytes")
            raise self.damaged("it ends beyond the end of the file")
        self.left -= count
        data = self.file.read(count)
        if len(data) != count:
            raise self.damaged("the file ends in it")
        return data

    def count(self, form: str = "<Q") -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self) -> str:
        data = self.take(self.count())
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a string is not UTF-8") from None


def is_one(path: Path) -> bool:
    """Whether a path is named like a GGUF file, and is no directory."""
    return path.suffix == SUFFIX and not path.is_dir()


def read(path: Path, where: str, *, with_strings: bool = False) -> Header:
    """The header of a file.

    Args:
        path: The file.
        where: What to call it.
        with_strings: Whether to keep arrays of strings, such as the vocabulary.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged, in several parts, or of a kind that is not read.
        StorageError: The system refused.
    """
    with untrusted.opened(path, where, MAGIC) as file:
        source = _Source(file, where)
        _require_version(source)
        n_tensors, n_entries = source.count(), source.count()
        if max(n_tensors, n_entries) > _MOST_ENTRIES:
            raise source.damaged(f"it states {max(n_tensors, n_entries)} entries")
        metadata = _metadata(source, n_entries, with_strings)
        _require_whole(metadata, where)
        return Header(metadata, _tensors(source, n_tensors, metadata))


def _require_version(source: _Source) -> None:
    if source.size < 2 * len(MAGIC) or source.take(len(MAGIC)) != MAGIC:
        raise errors.DataError(f"{source.where}: not a GGUF file, which begins with GGUF", _AGAIN)
    data = source.take(4)
    version = int.from_bytes(data, "little")
    if int.from_bytes(data, "big") in VERSIONS:
        raise errors.DataError(
            f"{source.where}: a big-endian GGUF file, which is not read",
            "take the little-endian one, or convert it: gguf-convert-endian FILE little",
        )
    if version not in VERSIONS:
        raise errors.DataError(
            f"{source.where}: version {version} of GGUF, read are {', '.join(map(str, VERSIONS))}",
            "take a file that a recent llama.cpp wrote",
        )


def _metadata(source: _Source, count: int, with_strings: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = source.string()
        if key in metadata:
            raise source.damaged(f"{untrusted.shown(key)} is there twice")
        metadata[key] = _value(source, key, with_strings)
    return {key: value for key, value in metadata.items() if value is not None}


def _value(source: _Source, key: str, with_strings: bool) -> Any:
    """A value; None for an array of strings that is not wanted."""
    kind = source.count("<I")
    if kind == _STRING:
        return source.string()
    if kind in _NUMBERS:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(source.take(dtype.itemsize), dtype)[0].item()
    if kind != _ARRAY:
        raise source.damaged(f"{untrusted.shown(key)} is of the unknown type {kind}")
    kind, length = source.count("<I"), source.count()
    source.elements -= length
    if source.elements < 0:
        raise source.damaged(f"{untrusted.shown(key)} states {length} elements")
    if kind == _STRING and with_strings:
        return [source.string() for _ in range(length)]
    if kind == _STRING:
        for _ in range(length):
            source.take(source.count())
        return None
    if kind not in _NUMBERS:
        raise source.damaged(f"{untrusted.shown(key)} is an array of the type {kind}")
    dtype = np.dtype(_NUMBERS[kind])
    return np.frombuffer(source.take(dtype.itemsize * length), dtype)


def _require_whole(metadata: Mapping[str, Any], where: str) -> None:
    parts = metadata.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise errors.DataError(
            f"{where}: one of {parts} parts of a model",
            "merge them: llama.cpp's llama-gguf-split --merge FIRST-PART NEW.gguf",
        )


def _tensors(source: _Source, count: int, metadata: Mapping[str, Any]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for _ in range(count):
        name = source.string()
        if name in found:
            raise source.damaged(f"tensor {untrusted.shown(name)} is there twice")
        n_axes = source.count("<I")
        if not 1 <= n_axes <= _MOST_AXES:
            raise source.damaged(f"tensor {untrusted.shown(name)} has {n_axes} axes")
        shape = tuple(source.count() for _ in range(n_axes))[::-1]
        found[name] = TensorInfo(shape, source.count("<I"), source.count(), 0)
        if not 0 < math.prod(shape) <= 2**48:
            raise source.damaged(f"tensor {untrusted.shown(name)} has shape {list(shape)}")
    alignment = metadata.get("general.alignment", 32)
    is_power = isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0
    if not is_power or alignment > _LARGEST_ALIGNMENT:
        raise source.damaged(f"general.alignment is {errors.show(alignment)}")
    start = -(-source.file.tell() // alignment) * alignment
    for name, info in found.items():
        offset = start + info.offset
        found[name] = info._replace(offset=offset, room=max(0, source.size - offset))
    return found
