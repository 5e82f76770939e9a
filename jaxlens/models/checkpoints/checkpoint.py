"""Checkpoints in, stacked float32 parameters out, and back.

Whatever the container, ``load`` gives the same NumPy pytree with the same bits (``digest`` is
equal), checked against ``config.json`` before anything is compiled:

every leaf of a block stacked over layers and kernels ``[in, out]``, under the paths of
``models.leaves``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import errors, models, types
from jaxlens.files import file_types, untrusted
from jaxlens.models.checkpoints import (
    checks,
    folders,
    formats,
    hub,
    layout,
    orbax,
    stack,
    state_dict,
)

SAVED_DTYPES = ("float32", "float16", "bfloat16")
FORMATS = (*formats.SINGLE, formats.ORBAX)

_WEIGHT_FILES = (*formats.SINGLE.values(), *formats.INDEX.values(), formats.ORBAX)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model.

    Attributes:
        architecture: Sizes and options.
        params: Float32 NumPy pytree stacked over layers.
        directory: Local folder that it came from, where a tokenizer would be; None for a state
            dict.
    """

    architecture: types.Architecture
    params: types.Params
    directory: Path | None

    @functools.cached_property
    def sha256(self) -> str:
        """`digest` of the weights."""
        return digest(self.params)

    def take(self) -> Iterator[tuple[str, np.ndarray]]:
        """Path and value of each leaf, which the checkpoint then lets go of."""
        self.sha256  # noqa: B018 (known from now on)
        leaves = layout.flat(self.params)
        self.params.clear()
        for path in sorted(leaves):
            yield path, leaves.pop(path)


def load(source: str | Path, revision: str | None = None, config: Any = None) -> Checkpoint:
    """Loads a model from a directory or the Hugging Face hub.

    Args:
        source: Directory, weights file, or hub id such as ``gpt2`` or ``org/name``.
        revision: Branch, tag or commit of a hub id.
        config: Taken instead of ``config.json``, see ``models.parse``.

    Raises:
        MissingError: The model or one of its files is not there.
        DataError: A file is damaged, contradicts ``config.json`` or is not supported.
        ConfigError: There are several models.
    """
    folder = folders.resolve(hub.locate(source, revision), str(source) or ".")
    label, weights = folder.label, folder.found
    if config is None:
        config = _config(folder.directory, label)
    architecture = models.parse(config)
    expected = models.leaves(architecture)
    _require_memory(expected, label)
    if weights.format == "orbax":
        params = orbax.load(folder.directory, expected, label)
    else:
        params = stack.stack(
            formats.tensors(folder.directory, weights, label, expected),
            expected,
            formats.FLAVOUR[weights.format],
            f"{label}/{weights.file}",
        )
    return Checkpoint(architecture, params, folder.tokenizer)


def _config(directory: Path, label: str) -> Any:
    path = directory / "config.json"
    if not untrusted.is_there(path):
        raise errors.MissingError(
            f"{label}: weights, but no config.json, which says of how many heads and layers",
            "copy it there from where the weights come from (model.config.save_pretrained(DIR) of "
            "transformers writes it); in Python, jaxlens.load_model(DIR, config=...) takes another",
        )
    return untrusted.read_json(path, label)


def from_state_dict(state: Mapping[Any, Any], config: Any = None) -> Checkpoint:
    """Takes weights that are already in memory.

    Args:
        state: PyTorch's state dict, or Flax's parameters, nested or flattened (keys joined by
            ``/`` or tuples), with any of the prefixes of ``names``; or a training checkpoint that
            holds one of them, see ``statedict.CONTAINERS``. Values are arrays or PyTorch tensors.
        config: Decoded ``config.json``, or what else ``models.parse`` takes; nanoGPT's
            checkpoints have their own.

    Raises:
        ConfigError: There is no configuration.
        DataError: As for ``load``; the message names the tensor.
    """
    if config is None:
        config = state_dict.config_of(state)
    if config is None:
        raise errors.ConfigError(
            "a state dict needs its config",
            "give config=model.config, or config=json.load(open('config.json'))",
        )
    architecture = models.parse(config)
    expected = models.leaves(architecture)
    tensors, flavour = state_dict.tensors(state, expected)
    return Checkpoint(architecture, stack.stack(tensors, expected, flavour, "state"), None)


def save(
    directory: str | Path,
    architecture: types.Architecture,
    params: types.Params,
    fmt: str,
    dtype: str = "float32",
    tokenizer_from: str | Path | None = None,
) -> None:
    """Writes a model directory that ``load``, and for the first two also others, can read.

    Args:
        directory: Created if needed; it must not hold weights yet.
        architecture: Becomes ``config.json``.
        params: Stacked parameters.
        fmt: ``safetensors`` (PyTorch's layout), ``msgpack`` (Flax's) or ``orbax`` (ours).
        dtype: ``float32``, ``float16`` or ``bfloat16``; at float32 every format keeps the bits.
        tokenizer_from: Directory whose tokenizer files are copied, as far as they are there.

    Raises:
        ConfigError: Unknown format or type, or the directory holds weights.
        DataError: The parameters do not fit the architecture, or overflow in ``dtype``.
        StorageError: The operating system refused to write.
    """
    if fmt not in FORMATS:
        raise errors.ConfigError(f"unknown weights format {fmt!r}", f"one of {', '.join(FORMATS)}")
    if dtype not in SAVED_DTYPES:
        raise errors.ConfigError(f"unknown dtype {dtype!r}", f"one of {', '.join(SAVED_DTYPES)}")
    expected = models.leaves(architecture)
    params = stack.cast(checks.require(params, expected, "parameters"), dtype)
    target = Path(directory).expanduser()
    present = [name for name in _WEIGHT_FILES if (target / name).exists()]
    if present:
        raise errors.ConfigError(
            f"{directory}: already holds {present[0]}", "give a new or an empty directory"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        _copy_tokenizer(tokenizer_from, target)
        config = json.dumps(models.dump(architecture), indent=2)
        (target / "config.json").write_text(config + "\n", encoding="utf-8")
    except OSError as error:
        raise errors.StorageError(
            f"{directory}: {error.strerror}", "check the free space and the permissions"
        ) from error
    # Last and atomically: a directory with weights is a complete one.
    if fmt == formats.ORBAX:
        orbax.save(target, params, str(directory))
    else:
        named = stack.unstack(params, expected, formats.FLAVOUR[fmt])
        formats.write(target / formats.SINGLE[fmt], fmt, named)


def digest(params: types.Params) -> str:
    """SHA-256 of the weights themselves, whatever container they came from.

    Over the leaves in the order of their sorted paths: path, shape and the values as
    little-endian float32.
    """
    total = hashlib.sha256()
    for path, value in sorted(layout.flat(params).items()):
        array = np.ascontiguousarray(value, dtype="<f4")
        total.update(f"{path} {'x'.join(map(str, array.shape))}\n".encode())
        total.update(array.data)
    return total.hexdigest()


def _require_memory(expected: layout.Layout, label: str) -> None:
    """Refuses what no allocation could hold; a damaged digit is enough for terabytes."""
    needed = 4 * expected.count(with_optional=False)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > machine:
        raise errors.DataError(
            f"{label}/config.json: describes {needed / 2**30:.0f} GiB of float32 weights, "
            f"this machine has {machine / 2**30:.0f} GiB of memory",
            "config.json is damaged, or the model needs a larger machine",
        )


def _copy_tokenizer(source: str | Path | None, target: Path) -> None:
    for name in file_types.TOKENIZER_FILES if source is not None else ():
        file = Path(source).expanduser() / name  # type: ignore[arg-type]
        if file.is_file() and file.resolve() != (target / name).resolve():
            shutil.copyfile(file, target / name)
