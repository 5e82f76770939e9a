"""The index of a token file, built while its documents are tokenised."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
import tokenizers
from jaxtyping import Int, Shaped

from jaxlens import errors, schema
from jaxlens.corpus import token_file
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.models import encoding
from jaxlens.store import document_fields

Piece = tuple[documents.Document | None, str]
"""A piece of text; the first of each document comes with the document."""


class IndexBuilder:
    """Tokenises pieces of documents and keeps their index.

    The index is held in flat arrays, since a corpus can have many small documents. See
    ``tokenize.build`` for the arguments.

    Attributes:
        starts: First token of every document so far.
        hashes: Hash of every document so far.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        vocab_size: int,
        limit: int | None,
        bos_id: int | None,
        skips: skip_log.SkipLog | None,
        fields: document_fields.Builder | None,
        encode_seconds: float,
    ) -> None:
        self._encode_seconds = encode_seconds
        self._documents = 0
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._limit = limit
        self._bos = np.array([] if bos_id is None else [bos_id], np.int64)
        self._skips = skip_log.SkipLog() if skips is None else skips
        self._kept = document_fields.Builder(()) if fields is None else fields
        self._counts = np.zeros(2 * vocab_size, np.int64)
        self._tokens = 0
        self.starts = array("q")
        self.hashes = array("Q")
        self._ids = bytearray()
        self._id_sizes = array("H")
        self._waiting: documents.Document | None = None  # for its first token
        self._latest: documents.Document | None = None
        self._fold = 0

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self._tokens >= self._limit

    def take(self, batch: list[Piece]) -> Int[np.ndarray, " n"]:
        """Tokenises pieces; returns the ids to write, in the type of the file."""
        texts = [text for _, text in batch]
        try:
            encoded = encoding.encode(self._tokenizer, texts, self._encode_seconds)
        except encoding.TooSlow as error:
            raise errors.DataError(
                f"the tokenizer takes over {self._encode_seconds:g} s for "
                f"{self._document(batch, error.place)}",
                "its regular expression may never end: take another tokenizer or leave the "
                "document out; or allow more with --set corpus.encode_seconds=600",
            ) from None
        except ValueError as error:
            raise errors.DataError(
                f"the tokenizer fails {self._position(batch)}: {error}",
                "take the tokenizer that the model was published with",
            ) from error
        parts, folds = [self._bos[:0]], [self._bos[:0]]
        for (opening, _), read in zip(batch, encoded, strict=True):
            if self.full:
                break
            token_ids = read.ids if opening is None or opening.ids is None else opening.ids
            ids = self._append(opening, np.array(token_ids, np.int64))
            parts.append(ids)
            folds.append(np.full(len(ids), self._fold))
            self._check(ids)
        self._note(batch)
        ids = np.concatenate(parts)
        cells = ids + self._vocab_size * np.concatenate(folds)
        self._counts += np.bincount(cells, minlength=2 * self._vocab_size)
        return ids.astype(np.dtype(schema.id_dtype(self._vocab_size)).newbyteorder("<"))

    def _note(self, batch: list[Piece]) -> None:
        """Counts the documents that were read."""
        opened = [opening for opening, _ in batch if opening is not None]
        self._documents += len(opened)
        self._latest = opened[-1] if opened else self._latest

    def _document(self, batch: list[Piece], piece: int) -> str:
        """The document of a piece of a batch: its number, from 1, and its location."""
        opened = [opening for opening, _ in batch[: piece + 1] if opening is not None]
        latest = opened[-1] if opened else self._latest
        where = "" if latest is None else f", {latest.location}"
        return f"document {self._documents + len(opened):,}{where}"

    def _position(self, batch: list[Piece]) -> str:
        """Where in the corpus a batch begins."""
        first = next((opening for opening, _ in batch if opening is not None), None)
        return f"at or after {first.location}" if first else f"after token {self._tokens}"

    def _append(
        self, opening: documents.Document | None, ids: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        if opening is not None:
            self._skip_waiting()
            self._waiting = self._latest = opening
        if ids.size and self._waiting is not None:
            self._open(self._waiting)
            ids = np.concatenate([self._bos, ids])
        ids = ids if self._limit is None else ids[: self._limit - self._tokens]
        self._tokens += len(ids)
        return ids

    def _check(self, ids: Int[np.ndarray, " n"]) -> None:
        """Refuses ids beyond the vocabulary; they belong to the latest document."""
        if int(ids.max(initial=0)) < self._vocab_size:
            return
        outside = int(ids[ids >= self._vocab_size][0])
        name = self._tokenizer.id_to_token(outside)
        where = "" if self._latest is None else f"{self._latest.location}: "
        raise errors.DataError(
            f"{where}token {outside} ({name!r}) is not among the {self._vocab_size} of the model",
            "use the tokenizer that the model was trained with",
        )

    def finish(self) -> token_file.Index:
        """The index."""
        self._skip_waiting()
        if not self._tokens and self._skips.why is not None:
            message, hint = self._skips.why
            if (others := self._skips.unusable - 1) > 0:
                message += f"; {errors.count(others, 'other file')} likewise without usable text"
            raise errors.DataError(message, hint)
        if not self._tokens:
            raise errors.DataError(
                "no tokens in corpus",
                f"read {errors.count(self._skips.documents, 'document')}, "
                f"skipped {self._skips.skipped:,}: "
                + (", ".join(f"{n} {why}" for why, n in self._skips.counts.items()) or "none"),
            )
        self.starts.append(self._tokens)
        return token_file.Index(
            document_start=np.array(self.starts, np.int64),
            document_hash=np.array(self.hashes, np.uint64),
            document_id=_table(self._ids, np.array(self._id_sizes, np.int64)),
            token_counts=self._counts.reshape(2, self._vocab_size),
            kept=self._kept.finish(),
        )

    def _open(self, document: documents.Document) -> None:
        self._waiting = None
        digest = document.digest()
        name = _stored_id(document.id)
        self.starts.append(self._tokens)
        self.hashes.append(int.from_bytes(digest, "little"))
        self._ids += name
        self._id_sizes.append(len(name))
        self._kept.add(document.kept)
        self._fold = digest[0] & 1

    def _skip_waiting(self) -> None:
        if self._waiting is not None:
            self._skips.add(self._waiting.location, skip_log.NO_TOKENS)
            self._waiting = None


def _stored_id(name: str) -> bytes:
    """An id of at most ``schema.ID_BYTES``; a longer one is cut and ends in a hash of the whole."""
    # Fixed-width strings drop NULs at their end.
    whole = name.encode("utf-8", "replace").replace(b"\0", "\ufffd".encode())
    if len(whole) <= schema.ID_BYTES:
        return whole
    mark = b"~" + hashlib.blake2b(whole, digest_size=4).hexdigest().encode()
    return whole[: schema.ID_BYTES - len(mark)].decode("utf-8", "ignore").encode() + mark


def _table(joined: bytearray, sizes: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Strings that were joined, as an array of fixed width."""
    width = max(1, int(sizes.max(initial=0)))
    table = np.zeros((len(sizes), width), np.uint8)
    table[np.arange(width) < sizes[:, None]] = np.frombuffer(joined, np.uint8)
    return table.reshape(-1).view(f"S{width}")
