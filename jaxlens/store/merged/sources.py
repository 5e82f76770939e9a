"""``SOURCES.json``: where the runs are that were merged, and what they were when they were."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import layout, records
from jaxlens.store.merged import merged_spec

SOURCES = "SOURCES.json"

MOST = 10_000
"""Most runs that are merged."""

HINT = "run jaxlens merge with the same runs again: it makes what is missing or damaged anew"

_MAX_PATH = 4096
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run that was merged.

    Attributes:
        path: Its directory, relative to that of the merged run.
        spec_hash: Of its ``RUN.json``.
        manifest_sha256: Of its ``MANIFEST``, which has the hash of every shard.
        n_tokens: Tokens of its corpus.
        n_documents: Documents of its corpus.
        n_rows: Rows stored.
    """

    path: str
    spec_hash: str
    manifest_sha256: str
    n_tokens: int
    n_documents: int
    n_rows: int


def is_merged(run_dir: str | Path) -> bool:
    """Whether a directory holds merged runs, sound or not."""
    if os.path.lexists(os.path.join(run_dir, layout.SHARDS)):
        return False
    if os.path.lexists(os.path.join(run_dir, SOURCES)):
        return True
    with contextlib.suppress(errors.JaxlensError):
        return merged_spec.is_merged(layout.read_spec(run_dir).document)
    return False


def refuse(run_dir: str | Path, what: str) -> None:
    """Refuses merged runs where a run that was swept is needed.

    Args:
        run_dir: Directory, which may not exist.
        what: What cannot be done, for the hint.

    Raises:
        ConfigError: It holds merged runs.
    """
    if is_merged(run_dir):
        raise errors.ConfigError(f"{run_dir} holds merged runs, none of its own", what)


def encode(spec_hash: str, sources: Sequence[Source]) -> bytes:
    """The record as canonical JSON, under a checksum.

    Args:
        spec_hash: Of the merged run.
        sources: In its order.
    """
    runs = [dataclasses.asdict(one) for one in sources]
    return records.encode_note({"runs": runs, "spec_hash": spec_hash})


def read(run_dir: str | Path, spec: layout.Spec) -> tuple[Source, ...]:
    """The runs that a merged run was made of, in its order.

    Args:
        run_dir: Merged run.
        spec: Its spec.

    Raises:
        DataError: The record is missing, damaged, or of another merged run.
    """
    path = contained.contained(run_dir, SOURCES)
    with errors.hinted(HINT):
        try:
            raw = contained.read(path, layout.LARGE)
        except errors.MissingError as error:
            raise errors.DataError(f"{path} is missing: {layout.RUN} is of merged runs") from error
        document = records.parse_note(raw, str(path))
        if document.get("spec_hash") != spec.hash:
            raise errors.DataError(f"{path} is of other merged runs than {layout.RUN}")
        runs = document.get("runs")
        if not isinstance(runs, list) or not 2 <= len(runs) <= MOST:
            raise errors.DataError(f"{path} is damaged: it names no runs")
        sources = tuple(_source(one, path) for one in runs)
        _compare(path, sources, spec.document)
        return sources


def relative(run_dir: str | Path, source_dir: str | Path) -> str:
    """How a merged run names the directory of a run."""
    return os.path.relpath(os.path.realpath(source_dir), os.path.realpath(run_dir))


def directory(run_dir: str | Path, source: Source) -> Path:
    """Where the run is that a merged run names."""
    return Path(os.path.normpath(os.path.join(os.path.realpath(run_dir), source.path)))


def require_same(run_dir: str | Path, source: Source) -> Path:
    """The directory of a run, found to be the one that was merged.

    Nothing there but its spec and its manifest is read before both have the recorded hash.

    Raises:
        MissingError: It is not there.
        DataError: It is another run, or its shards have changed.
    """
    folder = directory(run_dir, source)
    moved = f"restore it, or merge again from where it is: jaxlens merge {run_dir} RUN RUN ..."
    if not os.path.lexists(folder / layout.RUN):
        raise errors.MissingError(f"{folder}, which {run_dir} was merged from, is missing", moved)
    spec_hash, manifest_sha256 = identity(folder)
    if spec_hash != source.spec_hash:
        raise errors.DataError(f"{folder} is not the run that {run_dir} was merged from", moved)
    if manifest_sha256 != source.manifest_sha256:
        raise errors.DataError(
            f"{folder} has changed since {run_dir} was merged from it",
            f"{HINT}; or restore it",
        )
    return folder


def identity(run_dir: str | Path) -> tuple[str, str]:
    """Hashes of the spec and of the manifest of a finished run.

    Raises:
        MissingError: It holds no run, or one that is not finished.
        DataError: A file is damaged.
    """
    spec = layout.read_spec(run_dir)
    path = contained.contained(run_dir, layout.MANIFEST)
    try:
        raw = contained.read(path, max(layout.LARGE, (spec.n_shards + 1) * layout.LINE))
    except errors.MissingError as error:
        raise errors.MissingError(
            f"{run_dir} is not finished: {layout.MANIFEST} is missing",
            f"finish it with the same jaxlens run again, or jaxlens finalize {run_dir}",
        ) from error
    return spec.hash, hashlib.sha256(raw).hexdigest()


def _source(document: Any, path: Path) -> Source:
    fields = {field.name: str(field.type) for field in dataclasses.fields(Source)}
    if not isinstance(document, dict) or set(document) != set(fields):
        raise errors.DataError(f"{path} is damaged: a run has other fields")
    for name, kind in fields.items():
        value = document[name]
        fits = _is_count(value) if kind == "int" else isinstance(value, str)
        if fits and kind != "int":
            fits = _names_folder(value) if name == "path" else bool(_HASH.fullmatch(value))
        if not fits:
            raise errors.DataError(f"{path} is damaged: {name} of a run makes no sense")
    return Source(**document)


def _names_folder(path: str) -> bool:
    return 0 < len(path) <= _MAX_PATH and "\0" not in path and not os.path.isabs(path)


def _compare(path: Path, sources: Sequence[Source], spec: Mapping[str, Any]) -> None:
    """Compares the record with the spec: the same runs, in the same order, of the same sizes."""
    corpus = spec["corpus"]
    sizes = [sum(getattr(one, name) for one in sources) for name in ("n_tokens", "n_documents")]
    if [one.spec_hash for one in sources] != merged_spec.runs(spec) or sizes != [
        corpus["n_tokens"],
        corpus["n_documents"],
    ]:
        raise errors.DataError(f"{path} does not fit {layout.RUN}")
    if any(one.n_rows not in (0, one.n_tokens) for one in sources):
        raise errors.DataError(f"{path} is damaged: rows of a run make no sense")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
