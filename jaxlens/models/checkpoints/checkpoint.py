"""Checkpoints in, stacked float32 parameters out, and back.

Whatever the container, ``load`` gives the same NumPy pytree with the same bits (``digest`` is
equal), checked against ``config.json`` before anything is compiled:

every leaf of a block stacked over layers and kernels ``[in, out]``, under the paths of
``models.leaves``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import errors, models, types
from jaxlens.files import file_types, untrusted
from jaxlens.models import tokenizer, tokenizer_files
from jaxlens.models.checkpoints import (
    checks,
    folders,
    formats,
    gguf,
    gguf_header,
    hub,
    orbax,
    stack,
    state_dict,
    stream,
)
from jaxlens.models.checkpoints import digest as digests
from jaxlens.models.checkpoints.stored import Stored

SAVED_DTYPES = ("float32", "float16", "bfloat16")
FORMATS = (*formats.SINGLE, formats.ORBAX)

_WEIGHT_FILES = (*formats.SINGLE.values(), *formats.INDEX.values(), formats.ORBAX)


@dataclass(frozen=True)
class Checkpoint:
    """A model.

    Attributes:
        architecture: Sizes and options.
        params: Float32 NumPy pytree stacked over layers; empty where it has not been read.
        directory: Local folder that it came from, where a tokenizer would be, or the file that
            holds the tokenizer too; None for a state dict.
        stored: Weights that have not been read.
    """

    architecture: types.Architecture
    params: types.Params
    directory: Path | None
    stored: Stored | None = None

    def read(self) -> Checkpoint:
        """The same with its weights, in memory together.

        Raises:
            DataError: A file is damaged, or does not fit.
        """
        if self.stored is None:
            return self
        return dataclasses.replace(self, params=self.stored.read(), stored=None)

    def take(self, dtype: str = "float32", *, with_hash: bool = True) -> stream.Leaves:
        """Path and value of each leaf, read or let go of one after another; can be called once.

        Args:
            dtype: Of the values; the hash is of those in float32.
            with_hash: Whether `sha256` will be asked for, which takes a third of the time.

        Raises:
            DataError: A file is damaged, or does not fit.
        """
        total = digests.Digest() if with_hash else digests.Unwanted()
        if self.stored is None:
            yield from stream.of_params(self.params, dtype, total)
        else:
            yield from self.stored.stream(dtype, total)
        if with_hash:
            self.__dict__["sha256"] = total.hexdigest()

    @functools.cached_property
    def sha256(self) -> str:
        """`digest` of the weights, which have been read, or taken with it."""
        if not self.params:
            raise ValueError("the weights have not been read, or without their hash")
        return digests.of(self.params)


def load(
    source: str | Path, revision: str | None = None, config: Any = None, *, read: bool = True
) -> Checkpoint:
    """Loads a model from a directory, a file or the Hugging Face hub.

    Args:
        source: Directory, weights file, or hub id such as ``gpt2``, ``org/name`` or
            ``org/name:Q4_K_M``.
        revision: Branch, tag or commit of a hub id.
        config: Taken instead of ``config.json``, see ``models.parse``.
        read: Whether to read the weights, which are only found otherwise.

    Raises:
        MissingError: The model or one of its files is not there.
        DataError: A file is damaged, contradicts ``config.json`` or is not supported.
        ConfigError: There are several models.
    """
    located = hub.locate(source, revision)
    folder = folders.resolve(located, hub.label(source, located))
    if config is None and folder.found.format == formats.GGUF:
        file = folder.found.file
        architecture = gguf.architecture(folder.directory / file, f"{folder.label}/{file}")
    else:
        if config is None:
            config = _config(folder.directory, folder.label)
        architecture = models.parse(config)
    expected = models.leaves(architecture)
    stored = Stored(folder.directory, folder.found, folder.label, expected)
    found = Checkpoint(architecture, {}, folder.tokenizer, stored)
    return found.read() if read else found


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
        tokenizer_from: Directory whose tokenizer files are copied, as far as they are there, or a
            GGUF file whose tokenizer becomes ``tokenizer.json``.

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


digest = digests.of


def _copy_tokenizer(source: str | Path | None, target: Path) -> None:
    if source is not None and gguf_header.is_one(Path(source)):
        loaded = tokenizer.load_tokenizer(source)
        if loaded is not None:
            loaded.save(str(target / tokenizer_files.WHOLE))
        return
    for name in file_types.TOKENIZER_FILES if source is not None else ():
        file = Path(source).expanduser() / name  # type: ignore[arg-type]
        if file.is_file() and file.resolve() != (target / name).resolve():
            shutil.copyfile(file, target / name)
