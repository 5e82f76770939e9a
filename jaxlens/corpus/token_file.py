"""The token file: ids of a whole corpus, one after the other, and the index beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from jaxlens import errors, schema
from jaxlens.corpus import references
from jaxlens.files import closing, refusals
from jaxlens.store import document_fields

RESIDENT_BYTES = 256 * 2**20
"""Largest token file that ``TokenFile.gather`` keeps in memory."""

_MAX_TOKENS = 2**48  # an exabyte of rows
# Kinds of type, and number of axes.
_FIELDS = {
    "document_start": ("iu", 1),
    "document_hash": ("u", 1),
    "document_id": ("S", 1),
    "token_counts": ("iu", 2),
}


@dataclass(frozen=True, eq=False)
class Index:
    """What is known about a token file besides its tokens.

    Attributes:
        document_start: First token of each document, and the number of tokens.
        document_hash: Hash of each document's text; equal texts have equal hashes.
        document_id: Id of each document, UTF-8.
        token_counts: Occurrences of each token in each fold.
        kept: Fields of the documents that are kept.
    """

    document_start: Int[np.ndarray, " documents_plus_1"]
    document_hash: UInt64[np.ndarray, " document"]
    document_id: Shaped[np.ndarray, " document"]
    token_counts: Int[np.ndarray, "fold=2 vocab"]
    kept: document_fields.Metadata = field(default_factory=document_fields.Metadata)

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return int(self.document_start[-1])

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.document_hash)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return self.token_counts.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the tokens in the file: unsigned, little-endian, two or four bytes."""
        return np.dtype(schema.id_dtype(self.vocab_size)).newbyteorder("<")

    def id_of(self, document: int) -> str:
        """Id of a document."""
        return bytes(self.document_id[document]).decode("utf-8", "replace")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields, as plain arrays."""
        return {name: getattr(self, name) for name in _FIELDS} | self.kept.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Index:
        """The index that ``to_arrays`` gave.

        Raises:
            DataError: A field is missing or the fields do not fit each other.
        """
        for name, (kinds, axes) in _FIELDS.items():
            if name not in arrays:
                raise _mismatch(f"it has no {name}")
            if arrays[name].dtype.kind not in kinds or arrays[name].ndim != axes:
                raise _mismatch(f"{name} is {arrays[name].dtype} of {arrays[name].ndim} axes")
        try:
            fields = document_fields.Metadata.from_arrays(arrays, len(arrays["document_hash"]))
        except (KeyError, ValueError) as error:
            raise _mismatch(str(error)) from error
        index = cls(
            document_start=arrays["document_start"].astype(np.int64),
            document_hash=arrays["document_hash"].astype(np.uint64),
            document_id=arrays["document_id"],
            token_counts=arrays["token_counts"].astype(np.int64),
            kept=fields,
        )
        n_documents = len(index.document_hash)
        start, counts = index.document_start, index.token_counts
        if len(start) != n_documents + 1 or len(index.document_id) != n_documents:
            raise _mismatch("its fields differ in length")
        # Neither differences nor sums, which hostile numbers would overflow.
        if start[0] != 0 or np.any(start[1:] <= start[:-1]) or start[-1] > _MAX_TOKENS:
            raise _mismatch("documents do not follow each other")
        if len(counts) != 2 or not _adds_up(counts, int(start[-1])):
            raise _mismatch("counts do not add up to its tokens")
        return index


def _adds_up(counts: Int[np.ndarray, "fold vocab"], total: int) -> bool:
    within = counts.size and counts.min() >= 0 and counts.max() <= total
    # In float64 first, which does not overflow; then exactly.
    return bool(within and counts.sum(dtype=np.float64) < 2**62 and counts.sum() == total)


def _mismatch(what: str) -> errors.DataError:
    return errors.DataError(f"the index of the token file is damaged: {what}", "tokenise again")


class TokenFile(closing.Closing):
    """A token file, open for reading; never mapped, since a truncated map is a bus error.

    Args:
        path: The file that ``build`` wrote.
        index: Its index.

    Raises:
        MissingError: It does not exist.
        DataError: It has not the size that the index says.
        StorageError: The system refused.
    """

    def __init__(self, path: str | Path, index: Index) -> None:
        self.index = index
        self._path = os.fspath(path)
        self._resident: np.ndarray | None = None
        # A run's folder may hold neither links nor pipes: those would be somebody's trap.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with refusals.reading(self._path):
            self._descriptor = os.open(self._path, flags)
            status = os.fstat(self._descriptor)
        wanted = index.n_tokens * index.dtype.itemsize
        if not stat.S_ISREG(status.st_mode) or status.st_size != wanted:
            self.close()
            raise self._damaged(f"{status.st_size} bytes instead of {wanted}")

    def close(self) -> None:
        """Closes the file; safe to repeat."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
        """Tokens from ``start`` up to ``stop``.

        Raises:
            IndexError: Outside the file.
            DataError: The file ends before, or holds a token that the vocabulary has not.
            StorageError: The system refused.
        """
        if not 0 <= start <= stop <= self.index.n_tokens:
            raise IndexError(f"tokens {start}:{stop} of {self.index.n_tokens}")
        size = self.index.dtype.itemsize
        return self._ids(self._bytes(start * size, stop * size))

    def gather(self, indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Tokens at any places; a file up to ``RESIDENT_BYTES`` is kept from then on."""
        size = self.index.dtype.itemsize
        if self.index.n_tokens * size <= RESIDENT_BYTES:
            if self._resident is None:
                self._resident = self.read(0, self.index.n_tokens)
            return self._resident[indices]
        unique, back = np.unique(indices, return_inverse=True)
        joined = b"".join(self._bytes(size * i, size * (i + 1)) for i in unique.tolist())
        return self._ids(joined)[back]

    def document_of(self, indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Number of the document of each token."""
        return references.document_of(self.index.document_start, indices)

    def _ids(self, raw: bytes) -> Int[np.ndarray, " n"]:
        ids = np.frombuffer(raw, self.index.dtype)
        if ids.max(initial=0) >= self.index.vocab_size:  # every table of tokens would be left
            raise self._damaged(f"token {ids.max()} of {self.index.vocab_size}")
        return ids

    def _bytes(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            with refusals.reading(self._path):
                part = os.pread(self._descriptor, stop - start, start)
            if not part:
                raise self._damaged(f"it ends at byte {start}")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, what: str) -> errors.DataError:
        return errors.DataError(f"token file {self._path} is damaged: {what}", "repair the run")
