"""GGUF files of llama.cpp: the architecture out of the metadata, weights out of quantised blocks.

The package ``gguf`` knows the types of tensors; the header is read by ``gguf_header``, since the
package believes what it states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors, models, types
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import gguf_config, gguf_header, layout, stored_tensor

# Beside what is read, so that a table of 262,144 tokens is not in memory twice.
_BYTES_AT_ONCE = 2**22
_MOST_FACTORS = 5_000
_AGAIN = "fetch the model again"


def architecture(path: Path, where: str) -> types.Architecture:
    """What the metadata of a file describes, checked as its ``config.json`` would be.

    Args:
        path: The file.
        where: What to call it.

    Raises:
        MissingError: The package that reads such files is not installed, or the file is not there.
        DataError: The file is damaged, or of a model that is not supported; the message names what.
        StorageError: The system refused.
    """
    package = _package()
    header = gguf_header.read(path, where)
    names = _names(header, where)
    shapes = {name: info.shape for name, info in header.tensors.items()}

    def factors() -> np.ndarray:
        info = header.tensors[gguf_config.FREQUENCIES]
        if len(info.shape) > 1 or info.shape[0] > _MOST_FACTORS:
            raise errors.DataError(
                f"{where}: tensor {gguf_config.FREQUENCIES} has shape {list(info.shape)}", _AGAIN
            )
        return _value(package, path, info, gguf_config.FREQUENCIES, where)

    config = gguf_config.equivalent(header.metadata, shapes, names, factors, where)
    try:
        return models.parse(config)
    except errors.DataError as error:
        raise errors.DataError(f"{where}: its metadata, as {error.message}", _AGAIN) from error


def tensors(path: Path, where: str, expected: layout.Layout) -> Iterator[stored_tensor.Tensor]:
    """Every tensor of a file under PyTorch's name, float32 once it is read.

    Args:
        path: The file.
        where: What to call it.
        expected: Whose names the tensors get.

    Raises:
        MissingError: As ``architecture``.
        DataError: The file is damaged, or a tensor is not known; the message names it.
        StorageError: The system refused.
    """
    package = _package()
    header = gguf_header.read(path, where)
    names = _names(header, where)
    known = gguf_config.torch_names(names, expected.prefix, expected.blocks, header.tensors)
    for name, info in header.tensors.items():
        if name == gguf_config.FREQUENCIES:
            continue
        if name not in known:
            raise errors.DataError(
                f"{where}: unexpected tensor {untrusted.shown(name)}",
                f"{header.metadata['general.architecture']} has none of this name here; "
                "take the safetensors of the model",
            )
        own, torch = known[name]
        _require_bytes(package, info, name, where)
        transform = names.transforms.get(own)

        def value(
            name: str = name,
            info: gguf_header.TensorInfo = info,
            transform: gguf_config.Transform | None = transform,
        ) -> np.ndarray:
            found = _value(package, path, info, name, where)
            return found if transform is None else transform(found, expected.architecture)

        yield stored_tensor.Tensor(torch, "float32", info.shape, value, where)


def _package() -> Any:
    return errors.require_package("gguf", "gguf", "GGUF files")


def _names(header: gguf_header.Header, where: str) -> gguf_config.Names:
    name = gguf_config.architecture_name(header.metadata, where)
    known = models.gguf_names()
    if name not in known:
        raise errors.DataError(
            f"{where}: architecture {name[:80]!r} is not supported in GGUF files",
            f"supported: {', '.join(known)}",
        )
    return known[name]


def _row_bytes(package: Any, info: gguf_header.TensorInfo, name: str, where: str) -> int:
    """Bytes of a row of a tensor, whose type is one that the package reads.

    Raises:
        DataError: It is not, or the type does not divide the row.
    """
    shown = f"{where}: tensor {untrusted.shown(name)}"
    try:
        kind = package.GGMLQuantizationType(info.type)
        block, size = package.GGML_QUANT_SIZES[kind]
        package.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        raise errors.DataError(
            f"{shown} is of the type {_type_name(package, info.type)}, which is not read",
            "take the model in another quantization, such as Q8_0",
        ) from None
    if info.shape[-1] % block:
        raise errors.DataError(
            f"{shown} has rows of {info.shape[-1]} values, in blocks of {block}", _AGAIN
        )
    return info.shape[-1] // block * size


def _type_name(package: Any, number: int) -> str:
    try:
        return package.GGMLQuantizationType(number).name
    except ValueError:
        return str(number)


def _require_bytes(package: Any, info: gguf_header.TensorInfo, name: str, where: str) -> int:
    """Bytes of a row of a tensor that lies in the file as a whole."""
    row = _row_bytes(package, info, name, where)
    needed = row * math.prod(info.shape[:-1])
    if needed > info.room:
        raise errors.DataError(
            f"{where}: truncated: tensor {untrusted.shown(name)} takes {needed} bytes, "
            f"and {info.room} are left",
            _AGAIN,
        )
    return row


def _value(
    package: Any, path: Path, info: gguf_header.TensorInfo, name: str, where: str
) -> np.ndarray:
    """A tensor, float32; dequantised some rows at a time."""
    row = _require_bytes(package, info, name, where)
    kind = package.GGMLQuantizationType(info.type)
    count = math.prod(info.shape[:-1])
    found = np.empty((count, info.shape[-1]), np.float32)
    step = max(1, _BYTES_AT_ONCE // row)
    with untrusted.opened(path, where, gguf_header.MAGIC) as file:
        file.seek(info.offset)
        for start in range(0, count, step):
            rows = min(step, count - start)
            data = file.read(rows * row)
            if len(data) != rows * row:
                raise errors.DataError(f"{where}: truncated while it was read", _AGAIN)
            blocks = np.frombuffer(data, np.uint8).reshape(rows, row)
            with np.errstate(all="ignore"):  # scales that are not finite are refused by the caller
                found[start : start + rows] = package.dequantize(blocks, kind)
    return found.reshape(info.shape)
