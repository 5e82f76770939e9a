"""What a run knows of its corpus: documents, tokens, their counts and their strings.

These files were written by the stage that tokenises; here they are read as part of an untrusted
run: each is used only after its sha256 is compared with that of the spec, and none may claim more
memory than the token file beside it can explain.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from jaxlens import schema
from jaxlens.files import contained
from jaxlens.store import document_fields, layout, records, strict_json
from jaxlens.store.hdf5 import reading

_DOCUMENT_BYTES = 8 + 8 + schema.ID_BYTES
"""Of a document in the index: its start, its hash, the longest id."""

_VOCABULARY_BYTES = 1 << 26
"""Counts and strings of the largest vocabulary."""

_FIELDS = {
    "document_start": ("iu", 1),
    "document_hash": ("u", 1),
    "document_id": ("S", 1),
    "token_counts": ("iu", 2),
    "token_strings": ("S", 1),
}
"""Kinds of type, and number of axes."""


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents of a corpus, in the order of its tokens.

    Attributes:
        start: First token of each document, and the number of tokens.
        hash: Hash of each document's text; equal texts have equal hashes.
        id: Id of each document, UTF-8 of at most 200 bytes.
        kept: Fields of the documents that the run keeps, see ``corpus.keep``.
    """

    start: Int[np.ndarray, " documents_plus_1"]
    hash: UInt64[np.ndarray, " document"]
    id: Shaped[np.ndarray, " document"]
    kept: document_fields.Metadata = field(default_factory=document_fields.Metadata, repr=False)

    def __len__(self) -> int:
        return len(self.hash)

    def of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Number of the document of each row (token of the corpus)."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def to_columns(self) -> dict[str, np.ndarray]:
        """Number, id, first row and number of tokens of each document."""
        texts = [raw.decode("utf-8", "replace") for raw in self.id.tolist()]
        return {
            "document": np.arange(len(self)),
            "document_id": np.array(texts, object),
            "first_row": self.start[:-1],
            "n_tokens": np.diff(self.start),
        }


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """The index of a token file, and the way to its tokens.

    Attributes:
        documents: Where each document begins, and what it is called.
        token_counts: Occurrences of each token in each fold of the documents.
        token_strings: The bytes that each token stands for, without NULs at their end.
        path: The token file.
        record: Size and hash that the file must have.
    """

    documents: Documents
    token_counts: Int[np.ndarray, "fold=2 vocab"]
    token_strings: Shaped[np.ndarray, " vocab"]
    path: Path
    record: records.Tokens
    _hashed: threading.Event = field(default_factory=threading.Event, repr=False)

    def tokens(self, start: int = 0, stop: int | None = None) -> Int[np.ndarray, " n"]:
        """Tokens ``start:stop``, int32, one a row; the file's hash is compared once.

        Raises:
            MissingError: The file does not exist.
            DataError: It is damaged.
        """
        dtype = np.dtype(self.record.dtype).newbyteorder("<")
        low, high, _ = slice(start, stop).indices(self.record.n_tokens)
        start_byte, stop_byte = low * dtype.itemsize, max(low, high) * dtype.itemsize
        with contained.opened(self.path) as descriptor, reading.reading(self.path):
            if not self._hashed.is_set():
                if contained.sha256(self.path, descriptor) != self.record.sha256:
                    raise ValueError("its sha256 is not that recorded")
                self._hashed.set()
            raw = _read(self.path, descriptor, start_byte, stop_byte)
            tokens = np.frombuffer(raw, dtype).astype(np.int32)
            if tokens.size and not 0 <= tokens.min() <= tokens.max() < len(self.token_strings):
                raise ValueError(f"it has a token beyond the {len(self.token_strings)} known")
        return tokens


def limit(n_documents: int, n_kept: int = 0) -> int:
    """Most bytes that an index of this many documents may claim, with so many kept fields."""
    field_bytes = document_fields.VALUE_BYTES * min(max(n_kept, 0), schema.MAX_FIELDS)
    return _VOCABULARY_BYTES + (_DOCUMENT_BYTES + field_bytes) * n_documents


def n_kept(document: Mapping[str, Any]) -> int:
    """Number of kept fields that ``TOKENS.json`` states."""
    fields = document.get("kept")
    return len(fields) if isinstance(fields, dict) else 0


def read(
    run_dir: str | Path, spec: Mapping[str, Any], entries: Sequence[records.Record]
) -> TokenIndex:
    """The index of a run's token file.

    Args:
        run_dir: Run.
        spec: What it computes.
        entries: Records of its shards, which say which token file they were made from.

    Raises:
        MissingError: The run has no token file.
        DataError: It is damaged, or that of another run.
        StorageError: The system refused to read.
    """
    record, n_documents, n_fields = _record(run_dir, spec, entries)
    path = layout.token_path(run_dir, layout.TOKEN_INDEX)
    arrays, _ = reading.read_arrays(path, record.index_sha256, limit(n_documents, n_fields))
    with reading.reading(path):
        documents = _documents(arrays)
        if (int(documents.start[-1]), len(documents)) != (record.n_tokens, n_documents):
            raise ValueError("it is of another token file")
        counts = arrays["token_counts"].astype(np.int64)
        vocab_size = spec["model"]["architecture"]["vocab_size"]
        if counts.shape != (2, vocab_size) or arrays["token_strings"].shape != (vocab_size,):
            raise ValueError(f"it is not of {vocab_size} tokens")
        if not _adds_up(counts, record.n_tokens):
            raise ValueError("its counts do not add up to its tokens")
    tokens = layout.token_path(run_dir)
    return TokenIndex(documents, counts, arrays["token_strings"], tokens, record)


def _record(
    run_dir: str | Path, spec: Mapping[str, Any], entries: Sequence[records.Record]
) -> tuple[records.Tokens, int, int]:
    """The record of the token file, its documents and kept fields; compared with the run."""
    path = layout.token_path(run_dir, layout.TOKEN_RECORD)
    raw = contained.read(path, layout.LARGE)
    record = records.parse_tokens(raw, str(path))
    document = strict_json.parse(raw, str(path))
    n_documents = document.get("documents")
    stated = spec.get("corpus")
    corpus: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    stored = contained.size(layout.token_path(run_dir))
    with reading.reading(path):
        for name in ("sha256", "index_sha256"):
            if corpus.get(name, getattr(record, name)) != getattr(record, name):
                raise ValueError(f"its {name} is not that of {layout.RUN}")
        for entry in entries[-1:]:
            if (entry.tokens_sha256, entry.token_stop) != (record.sha256, record.n_tokens):
                raise ValueError("it is of another token file than the shards")
        # The size of the token file bounds what the index may claim.
        if stored != record.n_tokens * np.dtype(record.dtype).itemsize:
            raise ValueError(f"it promises {record.n_tokens} tokens, the file has {stored} bytes")
        if type(n_documents) is not int or not 0 < n_documents <= record.n_tokens:
            raise ValueError(f"it is of {n_documents!r:.20} documents")
        if corpus.get("n_documents", n_documents) != n_documents:
            raise ValueError(f"it is of {n_documents} documents, {layout.RUN} says another number")
    return record, n_documents, n_kept(document)


def _documents(arrays: Mapping[str, np.ndarray]) -> Documents:
    for name, (kinds, axes) in _FIELDS.items():
        if arrays[name].dtype.kind not in kinds or arrays[name].ndim != axes:
            raise ValueError(f"{name} is {arrays[name].dtype} of {arrays[name].ndim} axes")
    start = arrays["document_start"].astype(np.int64)
    hashes = arrays["document_hash"].astype(np.uint64)
    fields = document_fields.Metadata.from_arrays(arrays, len(hashes))
    documents = Documents(start, hashes, arrays["document_id"], fields)
    if len(start) != len(documents) + 1 or len(documents.id) != len(documents):
        raise ValueError("its fields differ in length")
    # No differences, which hostile numbers would overflow.
    if start[0] != 0 or np.any(start[1:] <= start[:-1]):
        raise ValueError("its documents do not follow each other")
    return documents


def _adds_up(counts: Int[np.ndarray, "fold vocab"], total: int) -> bool:
    within = counts.size and counts.min() >= 0 and counts.max() <= total
    # In float64 first, which does not overflow; then exactly.
    return bool(within and counts.sum(dtype=np.float64) < 2**62 and counts.sum() == total)


def _read(path: Path, descriptor: int, start: int, stop: int) -> bytearray:
    data = bytearray(stop - start)
    view = memoryview(data)
    while view.nbytes:
        with contained.reading(path):
            count = os.preadv(descriptor, [view], stop - view.nbytes)
        if not count:
            raise ValueError("it ends too early")
        view = view[count:]
    return data
