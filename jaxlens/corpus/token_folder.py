"""Folders of token files: the ids, their index and their record, found and checked as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxlens import errors
from jaxlens.corpus import token_file
from jaxlens.corpus.readers import skip_log
from jaxlens.files import contained, hash_memo, publish, system
from jaxlens.store import corpus_index, layout, records, strict_json
from jaxlens.store.hdf5 import reading

FILES = (layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD)

RECORD_BYTES = 2**22
"""Most bytes of ``TOKENS.json``; its log of skips is small for any corpus."""

_COPY_BYTES = 2**23


@dataclass(frozen=True)
class Ingested:
    """A token file that is whole.

    Attributes:
        directory: Folder of ``FILES``.
        record: Hashes and sizes.
        index: Documents and counts.
        skipped: Number of skips by reason.
        skipped_at: All of them in reading order, runs of lines together: ``file:line: reason``.
        fingerprint: Hash of what it was made from.
        fresh: Whether this process made it.
    """

    directory: Path
    record: records.Tokens
    index: token_file.Index
    skipped: dict[str, int]
    skipped_at: tuple[str, ...]
    fingerprint: str
    fresh: bool

    def open(self) -> token_file.TokenFile:
        """The token file, for reading."""
        return token_file.TokenFile(self.directory / layout.TOKEN_FILE, self.index)


def find_whole(directory: Path, spec: Mapping[str, Any]) -> Ingested | None:
    """The token file of a run, if it is whole, whatever it was made from; else None."""
    ingested = find(directory, None)
    if ingested is None:
        return None
    hashes = {"sha256": ingested.record.sha256, "index_sha256": ingested.record.index_sha256}
    corpus = spec.get("corpus")
    return ingested if isinstance(corpus, dict) and hashes.items() <= corpus.items() else None


def find(directory: Path, wanted: str | None) -> Ingested | None:
    """The token file of a folder, if it is whole; else None.

    Args:
        directory: Folder of ``FILES``.
        wanted: Fingerprint that it must have; None for any.
    """
    path = directory / layout.TOKEN_RECORD
    try:
        raw = contained.read(path, RECORD_BYTES)
        document = strict_json.parse(raw, str(path))
        record = records.parse_tokens(raw, str(path))
        made_from = document.get("fingerprint")
        if not isinstance(made_from, str) or wanted not in (None, made_from):
            return None
        # The size of the token file bounds what the index may claim, before it is read.
        stored = contained.size(directory / layout.TOKEN_FILE)
        if stored != record.n_tokens * np.dtype(record.dtype).itemsize:
            return None
        for name, digest in (
            (layout.TOKEN_FILE, record.sha256),
            (layout.TOKEN_INDEX, record.index_sha256),
        ):
            with contained.opened(directory / name) as descriptor:
                if hash_memo.sha256(directory / name, descriptor) != digest:
                    return None
        index = _index(
            directory / layout.TOKEN_INDEX,
            record,
            document.get("documents"),
            corpus_index.n_kept(document),
        )
        skipped, skipped_at = _skips(document, str(path))
    except (errors.MissingError, errors.DataError):
        return None
    return Ingested(directory, record, index, skipped, skipped_at, made_from, False)


def _index(path: Path, record: records.Tokens, n_documents: Any, n_kept: int) -> token_file.Index:
    """The index, if it is that of the record."""
    hint = "tokenise again"
    if not isinstance(n_documents, int) or not 0 < n_documents <= record.n_tokens:
        raise errors.DataError(f"{path} states {n_documents!r:.20} documents", hint)
    index = token_file.Index.from_arrays(_read_arrays(path, n_documents, n_kept))
    stated = (record.n_tokens, n_documents, record.dtype)
    if (index.n_tokens, index.n_documents, index.dtype.name) != stated:
        raise errors.DataError(f"{path} is of another token file", hint)
    return index


def _read_arrays(path: Path, n_documents: int, n_kept: int) -> dict[str, np.ndarray]:
    return dict(reading.read_arrays(path, limit=corpus_index.limit(n_documents, n_kept))[0])


def token_strings(ingested: Ingested) -> Shaped[np.ndarray, " vocab"]:
    """The bytes of each token, as the index holds them.

    Raises:
        DataError: The index has none.
    """
    path = ingested.directory / layout.TOKEN_INDEX
    index = ingested.index
    arrays = _read_arrays(path, index.n_documents, len(index.kept.names))
    if "token_strings" not in arrays:
        raise errors.DataError(f"{path} has no token_strings", "tokenise again")
    return arrays["token_strings"]


def _skips(document: dict[str, Any], name: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Counts and locations of the skips, checked since they are printed."""
    counts, locations = document.get("skipped"), document.get("skipped_at")
    if (
        not isinstance(counts, dict)
        or not isinstance(locations, list)
        or not all(reason in skip_log.REASONS for reason in counts)
        or not all(type(count) is int and count > 0 for count in counts.values())
        or not all(isinstance(location, str) for location in locations)
        or bool(counts) != bool(locations)
    ):
        raise errors.DataError(f"{name} is damaged: its skips are not valid", "tokenise again")
    return counts, tuple(locations)


def copy_to(ingested: Ingested, target: Path, disk: system.Disk = system.DISK) -> Ingested:
    """Copies a token file into the folder of a run, unless the folder holds it already.

    The copy takes two bytes a token, beside some hundred bytes of rows.

    Args:
        ingested: Token file.
        target: Folder.
        disk: System calls.
    """
    if target == ingested.directory:
        return ingested
    existing = find(target, ingested.fingerprint)
    if existing is not None:
        return existing
    publish.make_directory(target, disk)
    for name in FILES:
        _copy(ingested.directory / name, target / name, disk)
    return dataclasses.replace(ingested, directory=target)


def _copy(source: Path, target: Path, disk: system.Disk) -> None:
    with source.open("rb") as reader, publish.stream(target, disk) as writer:
        while block := reader.read(_COPY_BYTES):
            writer.write(block)
