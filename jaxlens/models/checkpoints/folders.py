"""Which files of a path are the model: its weights, its tokenizer, and what is not a model at all.

A path may be a model directory, a weights file in one, the output of a training run (whose only
``checkpoint-N`` is taken), or a repository of the hub's cache. Everything else is refused with what
was found there.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from pathlib import Path
from typing import NamedTuple

from jaxlens import errors
from jaxlens.files import file_types, untrusted
from jaxlens.models.checkpoints import formats, gguf_header, orbax

logger = logging.getLogger("jaxlens")

_CONVERT = (
    "convert it where you trust it: transformers' "
    "GPT2LMHeadModel.from_pretrained(DIR).save_pretrained(NEW) writes safetensors"
)
_PICKLE = "is a pickle, which can run code, and is never read"
_IN_MEMORY = (
    "where you trust it, pass it from memory, jaxlens.load_model(torch.load(FILE), config=...), "
    "or save its weights as safetensors"
)
_TF = "is a TensorFlow checkpoint, which is not read"
_SHARDED = "is a sharded training checkpoint, which is not read"

UNREADABLE: dict[str, tuple[str, str]] = {
    "adapter_*": (
        "is an adapter, which changes a base model that is not here",
        "merge it first: peft's PeftModel.from_pretrained(BASE, DIR).merge_and_unload()"
        ".save_pretrained(NEW)",
    ),
    "ggml*.bin": ("is a GGML file, which is not read", _CONVERT),
    "pytorch_model*.bin": (_PICKLE, _CONVERT),
    **dict.fromkeys(
        ("model.ckpt*.index", "model.ckpt*.data-*"),
        (
            _TF,
            "OpenAI's GPT-2 is on the hub as gpt2, gpt2-medium, gpt2-large and gpt2-xl; "
            "convert others with transformers 4",
        ),
    ),
    "*.h5": (_TF, "convert it with transformers 4: from_pretrained(DIR, from_tf=True)"),
    "global_step*/": (_SHARDED, "merge it: python zero_to_fp32.py DIR NEW --safe_serialization"),
    "pytorch_model_fsdp_*/": (_SHARDED, "merge it: accelerate merge-weights DIR NEW"),
    "*.distcp": (_SHARDED, "merge it: accelerate merge-weights DIR NEW"),
    **dict.fromkeys(("*.pt", "*.pth", "*.ckpt"), (_PICKLE, _IN_MEMORY)),
    **dict.fromkeys(("*.bin", "*.pkl", "*.pickle"), (_PICKLE, _CONVERT)),
    **dict.fromkeys(
        ("*.onnx", "*.ot", "*.tflite", "*.mlmodel", "*.npz", "*.nemo"),
        ("is of a format that is not read", "save the model as safetensors with transformers"),
    ),
    **dict.fromkeys(("*.zip", "*.tar", "*.tar.gz", "*.tgz"), ("is an archive", "unpack it")),
    "*.dvc": ("is a pointer of DVC", "run dvc pull"),
    "*.incomplete": ("is part of a download that did not finish", "fetch the model again"),
}
"""Names of files (folders end in a slash) with weights that are not read -> what they are, and the
remedy; the first match counts."""

_ORBAX_FILES = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")
_RESTORE = "load it with Orbax, then pass the parameters: jaxlens.load_model(tree, config=...)"
_CHECKPOINT = re.compile(r"checkpoint-[0-9]{1,12}", re.ASCII)
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+\.", re.ASCII)
_LONGEST_REFERENCE = 100
_MOST_TREES = 10


class Place(NamedTuple):
    """Where a model lies.

    Attributes:
        directory: Folder of ``config.json`` and the weights.
        label: What to call it.
        found: Its weights.
        tokenizer: Folder of its tokenizer, if there is one, or the file that holds it too.
    """

    directory: Path
    label: str
    found: formats.Found
    tokenizer: Path


def resolve(path: Path, label: str) -> Place:
    """The model at a path.

    Raises:
        MissingError: There are no weights.
        ConfigError: There are several models.
        DataError: There are only weights that cannot be read.
        StorageError: The system refused.
    """
    try:
        if not path.is_dir():
            return _of_file(path, label)
        directory, label = _snapshot(path, label)
        weights = _weights(directory)
        if weights is not None:
            _refuse_adapter(directory, label)
            return Place(directory, label, weights, _holder(directory, label))
        steps = [name for name in untrusted.names(directory) if _is_checkpoint(directory, name)]
        if len(steps) > 1:
            steps.sort(key=lambda name: int(name.removeprefix("checkpoint-")))
            raise errors.ConfigError(
                f"{label}: {len(steps)} checkpoints, {untrusted.listed(steps)}",
                f"name one of them: {label}/{steps[-1]}",
            )
        if steps:
            logger.info("%s: reading %s, the only checkpoint with weights", label, steps[0])
            inner = directory / steps[0]
            _refuse_adapter(inner, f"{label}/{steps[0]}")
            weights = _weights(inner)
            assert weights is not None
            return Place(inner, f"{label}/{steps[0]}", weights, _holder(inner, label))
        raise _absent(directory, label)
    except OSError as error:
        raise errors.StorageError(f"{label}: {error.strerror}", untrusted.READABLE) from error


def _weights(directory: Path) -> formats.Found | None:
    """Safetensors, else msgpack, else Orbax."""
    for fmt in formats.SINGLE:
        for name in (formats.SINGLE[fmt], formats.INDEX[fmt]):
            # Whatever kind of entry: passing over a broken one could take other weights unseen.
            if untrusted.is_there(directory / name):
                return formats.Found(fmt, name)  # type: ignore[arg-type]
    if untrusted.is_there(directory / formats.ORBAX):
        return formats.Found("orbax", formats.ORBAX)
    return None


def _of_file(path: Path, label: str) -> Place:
    """A weights file that was named itself; its ``config.json`` lies beside it."""
    name = path.name
    parent = str(Path(label).parent)
    for pattern, (what, remedy) in UNREADABLE.items():
        if fnmatch.fnmatchcase(name, pattern):
            raise errors.DataError(f"{label} {what}", remedy)
    for fmt, single in formats.SINGLE.items():
        if _SHARD.search(name) and name.endswith(Path(single).suffix):
            raise errors.DataError(
                f"{label}: one of several files of a model",
                f"give the directory, {parent}, or {parent}/{formats.INDEX[fmt]}",
            )
        if gguf_header.is_one(path):
            return Place(path.parent, parent, formats.Found(formats.GGUF, name), path)
        if name.endswith(Path(single).suffix) or name == formats.INDEX[fmt]:
            weights = formats.Found(fmt, name)  # type: ignore[arg-type]
            return Place(path.parent, parent, weights, path.parent)
    raise errors.DataError(
        f"{label}: a file; a model is a directory", "give the directory that holds the file"
    )


def _snapshot(directory: Path, label: str) -> tuple[Path, str]:
    """The current snapshot of a repository in the hub's cache; other directories as they are."""
    snapshots = directory / "snapshots"
    if _weights(directory) is not None or not snapshots.is_dir():
        return directory, label
    reference = directory / "refs" / "main"
    there = untrusted.names(snapshots)
    commit = there[0] if len(there) == 1 else ""
    if untrusted.is_there(reference):
        with untrusted.opened(reference, f"{label}/refs/main") as file:
            commit = file.read(_LONGEST_REFERENCE).decode("utf-8", "replace").strip()
        if not _COMMIT.fullmatch(commit):
            raise errors.DataError(
                f"{label}/refs/main: names no commit", "give one of the folders in snapshots"
            )
    if commit not in there:
        raise errors.MissingError(
            f"{label}: a repository of the hub's cache, whose refs/main names no snapshot; "
            f"there are {untrusted.listed(there) or 'none'}",
            f"name one: {label}/snapshots/COMMIT",
        )
    return snapshots / commit, f"{label}/snapshots/{commit}"


def _is_orbax(directory: Path) -> bool:
    return any(untrusted.is_there(directory / name) for name in _ORBAX_FILES)


def _is_checkpoint(directory: Path, name: str) -> bool:
    return _CHECKPOINT.fullmatch(name) is not None and _weights(directory / name) is not None


def _has_tokenizer(directory: Path) -> bool:
    return any(untrusted.is_there(directory / name) for name in file_types.TOKENIZER_FILES)


def _holder(directory: Path, label: str) -> Path:
    """Folder of a model's tokenizer, which trainers keep beside the checkpoints, or in each."""
    whole = directory.absolute()
    if not _CHECKPOINT.fullmatch(whole.name) or _has_tokenizer(directory):
        return directory
    if not _has_tokenizer(whole.parent):
        return directory
    logger.info("%s: the tokenizer is that of the folder above the checkpoint", label)
    return whole.parent


def _refuse_adapter(directory: Path, label: str) -> None:
    """Refuses weights beside an adapter: transformers would apply it, and this would not."""
    names = [n for n in untrusted.names(directory) if fnmatch.fnmatchcase(n, "adapter_[cm]*")]
    if names:
        raise errors.DataError(
            f"{label}: {names[0]}, part of an adapter, lies beside the weights",
            "merge it first (peft's merge_and_unload), or give the weights file itself to leave "
            "the adapter out",
        )


def _absent(directory: Path, label: str) -> errors.JaxlensError:
    """The error for a directory without weights that can be read, by what there is instead."""
    names = untrusted.names(directory)
    for pattern, (what, remedy) in UNREADABLE.items():
        for name in names:
            shown = f"{name}/" if (directory / name).is_dir() else name
            if fnmatch.fnmatchcase(shown, pattern):
                return errors.DataError(f"{label}: {untrusted.shown(shown)} {what}", remedy)
    files = [name for name in names if name.endswith(gguf_header.SUFFIX)]
    if files:
        return errors.MissingError(
            f"{label}: a GGUF file is a model by itself, here {untrusted.listed(files)}",
            f"name the file: {label}/{untrusted.shown(files[0])}",
        )
    for fmt, single in formats.SINGLE.items():
        suffix = Path(single).suffix
        other = [name for name in names if name.endswith(suffix)]
        if any(map(_SHARD.search, other)):
            return errors.MissingError(
                f"{label}: {untrusted.listed(other)}, and no {formats.INDEX[fmt]} that names them",
                "fetch the index too",
            )
        if other:
            return errors.MissingError(
                f"{label}: no {single}, but {untrusted.listed(other)}",
                f"name the file: {label}/{untrusted.shown(other[0])}",
            )
    return _elsewhere(directory, label, names)


def _elsewhere(directory: Path, label: str, names: list[str]) -> errors.JaxlensError:
    """The error for a directory beside, above or below a model."""
    below = [name for name in names if (directory / name).is_dir()]
    if _is_orbax(directory):
        hint = _RESTORE
        if directory.name == formats.ORBAX and untrusted.is_there(directory.parent / "config.json"):
            hint = f"the model is the directory above: {Path(label).parent}"
        # A manager's steps keep the tree in a folder of its own.
        trees = (orbax.declared(directory / name, label) for name in ("", *below[:_MOST_TREES]))
        listed = untrusted.listed(next(filter(None, trees), names))
        return errors.DataError(f"{label}: an Orbax checkpoint by itself, with {listed}", hint)
    steps = [name for name in below if _is_orbax(directory / name)]
    if steps:
        listed = untrusted.listed(steps)
        return errors.DataError(f"{label}: Orbax checkpoints by themselves, {listed}", _RESTORE)
    saved = [name for name in below if _CHECKPOINT.fullmatch(name)]
    if saved:  # without weights that are read
        return _absent(directory / saved[-1], f"{label}/{saved[-1]}")
    cached = [name for name in names if _REPOSITORY.fullmatch(name)]
    if cached:
        return errors.MissingError(
            f"{label}: the hub's cache, with {untrusted.listed(cached)}",
            f"name a repository: {label}/{untrusted.shown(cached[0])}",
        )
    models = [name for name in below if _weights(directory / name) is not None]
    if models:
        return errors.MissingError(
            f"{label}: no weights here, but in {untrusted.listed(models)}",
            f"give that directory: {label}/{untrusted.shown(models[0])}",
        )
    looked = ", ".join(
        [name for fmt in formats.SINGLE for name in (formats.SINGLE[fmt], formats.INDEX[fmt])]
    )
    if _weights(directory.resolve().parent) is not None:
        return errors.MissingError(
            f"{label}: no weights here, but in the directory above",
            f"looked for {looked} and {formats.ORBAX}/",
        )
    here = f"only {untrusted.listed(names)}" if names else "it is empty"
    return errors.MissingError(
        f"{label}: no weights, {here}", f"looked for {looked} and {formats.ORBAX}/"
    )
