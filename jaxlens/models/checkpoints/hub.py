"""Where a model's files lie: locally, in an installed package, or in the hub's cache."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxlens import errors
from jaxlens.files import file_types
from jaxlens.models.checkpoints import hub_gguf, packages

_SECONDS = 10.0  # that the hub may take to say what a repository holds
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
_HUB_ID = re.compile(
    r"([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?::([A-Za-z0-9][\w.-]*))?", re.ASCII
)


def locate(source: str | Path, revision: str | None = None) -> Path:
    """The local path of a model; of a hub id only the files that are needed are downloaded.

    Args:
        source: Path, one of ``packages.PACKAGES``, or hub id (``gpt2``, ``org/name``), of a GGUF
            file with its quantisation (``org/name:Q4_K_M``). An existing path is a path; so is
            whatever is a ``Path``, starts with ``.``, ``/`` or ``~``, or cannot be an id.
        revision: Branch, tag or commit of a hub id.

    Raises:
        MissingError: Neither is there.
        ConfigError: A revision or a quantisation of a local directory was asked for, a quantisation
            names several files, or the source is of a type that names no model.
        DataError: An installed package holds another file than it was published with, or a GGUF
            file is in several parts.
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
    if not exists:
        _refuse_suffix(str(source))
    if not (exists or isinstance(source, Path)) and (hub_id := _HUB_ID.fullmatch(source)):
        name, quantisation = hub_id.groups()
        if quantisation is None:
            return _download(name, revision)
        return _download_gguf(name, quantisation, revision)
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


def label(source: str | Path, located: Path) -> str:
    """What messages call a model.

    Args:
        source: As it was given.
        located: Where it lies, see `locate`.
    """
    if source in packages.PACKAGES:
        return str(located)
    hub_id = None if os.path.exists(os.path.expanduser(source)) else _HUB_ID.fullmatch(str(source))
    if hub_id and hub_id[2] is not None:
        return f"{hub_id[1]}/{located.name}"
    return str(source) or "."


def _refuse_suffix(source: str) -> None:
    """Refuses a quantisation after the path of what is there."""
    path, colon, _ = source.rpartition(":")
    if colon and path and os.path.exists(os.path.expanduser(path)):
        raise errors.ConfigError(
            f"{source}: {path} is a local path, which has no quantisation after a colon",
            "give the path of the GGUF file; a quantisation belongs to a hub id",
        )


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
            _refuse_gguf(name, _cached_files(name, revision), wanted)
            raise errors.MissingError(f"{wanted}: {_reason(error)}", _hint()) from error
        if any((Path(folder) / file).is_file() for file in patterns[:2]):
            return Path(folder)
    try:
        names = _listed(name, revision)
    except Exception:
        names = _cached_files(name, revision)
    _refuse_gguf(name, names, wanted)
    raise errors.MissingError(
        f"{wanted}: the hub (or its offline cache) has no weights under this id that can be read",
        f"looked for {', '.join(file for patterns in _WEIGHTS for file in patterns[:2])}; "
        "pickles are never read; HF_HUB_OFFLINE=1 sees only what was downloaded before",
    )


def _refuse_gguf(name: str, names: Sequence[str], wanted: str) -> None:
    """Refuses a repository with GGUF files alone, which need a quantisation."""
    found = hub_gguf.files(names)
    if found and not any(file.endswith((".safetensors", ".msgpack")) for file in names):
        raise hub_gguf.unnamed(found, name, wanted)


def _download_gguf(name: str, quantisation: str, revision: str | None) -> Path:
    import huggingface_hub

    wanted = f"{name} at {revision}" if revision else name
    try:
        names = _listed(name, revision)
    except Exception as error:
        folder = _cached(name, revision)
        if folder is None:
            raise errors.MissingError(f"{wanted}: {_reason(error)}", _hint()) from error
        there = hub_gguf.files(_files(folder))
        where = f"{wanted} in the hub's cache (the hub cannot be asked)"
        return folder / hub_gguf.choose(there, quantisation, name, where)
    file = hub_gguf.choose(hub_gguf.files(names), quantisation, name, wanted)
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=[glob.escape(file)]
        )
    except Exception as error:
        raise errors.MissingError(f"{wanted}: {file}: {_reason(error)}", _hint()) from error
    return Path(found) / file


def _listed(name: str, revision: str | None) -> list[str]:
    """Files of a repository, as the hub says.

    Raises:
        Exception: The hub cannot be asked, or has no such repository or revision.
    """
    import huggingface_hub

    # One request; list_repo_files tries for half a minute where there is no network.
    siblings = huggingface_hub.model_info(name, revision=revision, timeout=_SECONDS).siblings
    return [sibling.rfilename for sibling in siblings or ()]


def _cached(name: str, revision: str | None) -> Path | None:
    """Folder of a snapshot in the hub's cache, whichever files it holds."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=[], local_files_only=True
        )
    except Exception:
        return None
    return Path(folder)


def _cached_files(name: str, revision: str | None) -> list[str]:
    folder = _cached(name, revision)
    return [] if folder is None else _files(folder)


def _files(folder: Path) -> list[str]:
    """Files of a snapshot; a link to a file that was removed is none."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _reason(error: Exception) -> str:
    """One line for what the hub's library says in paragraphs."""
    kind = type(error).__name__
    unreachable = "neither a local directory nor in the hub's cache, and the hub cannot be reached"
    known = {
        "RepositoryNotFoundError": "the hub has no such repository, or it is private",
        "GatedRepoError": "the repository is gated",
        "RevisionNotFoundError": "the hub has no such revision",
        "HFValidationError": "no valid hub id",
        "LocalEntryNotFoundError": unreachable,
        "IncompleteSnapshotError": "only a part is in the hub's cache, and the hub cannot be "
        "reached",
        "OfflineModeIsEnabled": unreachable,
        "ConnectError": unreachable,
        "ConnectTimeout": unreachable,
    }
    return known.get(kind, f"not to be had from the hub ({kind})")


def _hint() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set; unset it to download, or give a local directory"
    return (
        "check the id and the connection, or give a local directory; "
        "HF_HUB_OFFLINE=1 uses only what was downloaded before"
    )
