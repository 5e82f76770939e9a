"""Where a model's files lie: locally, in an installed package, or in the hub's cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jaxlens import errors
from jaxlens.files import file_types
from jaxlens.models.checkpoints import packages

_BESIDE = ("config.json", *file_types.TOKENIZER_FILES)
# Safetensors first; the second list is asked for only where a repository has none of the first.
_WEIGHTS = (
    (
        "model.safetensors",
        "model.safetensors.index.json",
        "model-[0-9]*-of-[0-9]*.safetensors",
    ),
    (
        "flax_model.msgpack",
        "flax_model.msgpack.index.json",
        "flax_model-[0-9]*-of-[0-9]*.msgpack",
    ),
)
_PAGE = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/([\w.-]+(?:/[\w.-]+)?)/?(?:tree/.*)?", re.ASCII
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def locate(source: str | Path, revision: str | None = None) -> Path:
    """The local path of a model; of a hub id only the files that are needed are downloaded.

    Args:
        source: Path, one of ``packages.PACKAGES``, or hub id (``gpt2``, ``org/name``). An existing
            path is a path; so is whatever is a ``Path``, starts with ``.``, ``/`` or ``~``, or
            cannot be an id.
        revision: Branch, tag or commit of a hub id.

    Raises:
        MissingError: Neither is there.
        ConfigError: A revision of a local directory was asked for, or the source is of a type
            that names no model.
        DataError: An installed package holds another file than it was published with.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise errors.ConfigError(
            f"a model is given as {type(source).__name__}",
            "give a directory, a weights file, a hub id, or a mapping of names to arrays",
        )
    path = Path(os.path.expanduser(source))
    # os.path answers False where Path.exists would raise: names too long, NUL, no permission.
    exists = os.path.exists(path)
    if not exists and source in packages.PACKAGES and revision is None:
        return packages.locate(str(source))
    if not (exists or isinstance(source, Path)) and _HUB_ID.fullmatch(source):
        return _download(source, revision)
    if not exists:
        page = _PAGE.fullmatch(str(source))
        wanted = (
            f"the hub id alone: {page[1]}"
            if page
            else "a model directory or a hub id such as org/name"
        )
        raise errors.MissingError(f"{source}: no such directory", f"give {wanted}")
    if revision is not None:
        raise errors.ConfigError(
            f"{source}: a local directory has no revision {revision}",
            "leave the revision out, or give a hub id",
        )
    return path


def _download(name: str, revision: str | None) -> Path:
    # A second to import, and most models are local.
    import huggingface_hub

    wanted = f"{name} at {revision}" if revision else name
    for patterns in _WEIGHTS:
        try:
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[*_BESIDE, *patterns]
            )
        except Exception as error:
            raise errors.MissingError(f"{wanted}: {_reason(error)}", _hint()) from error
        if any((Path(folder) / file).is_file() for file in patterns[:2]):
            return Path(folder)
    raise errors.MissingError(
        f"{wanted}: the hub (or its offline cache) has no weights under this id that can be read",
        f"looked for {', '.join(file for patterns in _WEIGHTS for file in patterns[:2])}; "
        "pickles are never read; HF_HUB_OFFLINE=1 sees only what was downloaded before",
    )


def _reason(error: Exception) -> str:
    """One line for what the hub's library says in paragraphs."""
    kind = type(error).__name__
    known = {
        "RepositoryNotFoundError": "the hub has no such repository, or it is private",
        "GatedRepoError": "the repository is gated",
        "RevisionNotFoundError": "the hub has no such revision",
        "HFValidationError": "no valid hub id",
        "LocalEntryNotFoundError": "neither a local directory nor in the hub's cache, "
        "and the hub cannot be reached",
    }
    return known.get(kind, f"not to be had from the hub ({kind})")


def _hint() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set; unset it to download, or give a local directory"
    return (
        "check the id and the connection, or give a local directory; "
        "HF_HUB_OFFLINE=1 uses only what was downloaded before"
    )
