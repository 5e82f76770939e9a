"""Tokenising: documents in, a token file and its index out, in bounded memory."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tokenizers
from jaxtyping import Int, Shaped

from jaxlens import errors, schema
from jaxlens.corpus import token_file
from jaxlens.corpus.readers import documents
from jaxlens.corpus.readers import skips as skiplog
from jaxlens.corpus.synthetic import shuffle
from jaxlens.models import encoding
from jaxlens.models import tokenizer as vocabulary
from jaxlens.store import document_fields

Index = token_file.Index
TokenFile = token_file.TokenFile
load_tokenizer = vocabulary.load_tokenizer
tokenizer_digest = vocabulary.tokenizer_digest
strings = vocabulary.strings
word_tables = vocabulary.word_tables

# An encoded token takes about 120 bytes until it is written, so a batch stays under 100 MB.
_BATCH_CHARACTERS = 2**21
_FIRST_BATCH_CHARACTERS = 2**16
_BATCH_PIECES = 2**14
# Long documents are cut into pieces: short enough to keep all cores busy where the cut is exact,
# else as long as memory allows. A piece without a place to cut grows by _OVERRUN at most.
_EXACT_PIECE = 2**14
_OTHER_PIECE = 2**22
_OVERRUN = 2**20
_CUT = re.compile(r"(?<=\S)[ \n]")

_Piece = tuple[documents.Document | None, str]


def build(
    corpus: Iterable[documents.Document],
    tokenizer: tokenizers.Tokenizer,
    write: Callable[[bytes], object],
    *,
    vocab_size: int,
    limit: int | None = None,
    bos_id: int | None = None,
    skips: documents.SkipLog | None = None,
    shuffle_seed: int | None = None,
    kept: document_fields.Builder | None = None,
    encode_seconds: float = encoding.SECONDS,
) -> Index:
    """Tokenises documents on all cores and writes their ids, in bounded memory.

    Special tokens written out in the text are read as such; none are added. Long documents are
    cut where a space or a line end follows a character. For GPT-2's tokenizer this changes no
    id; with others only documents of over four million characters are cut. Only a run of a
    million characters without such a place is cut inside. A document that brings its ids is
    taken as it is.

    Args:
        corpus: Documents; read a little ahead of ``limit``.
        tokenizer: See ``load_tokenizer``.
        write: Takes the ids, little-endian, in the type that the index names.
        vocab_size: Tokens that the model knows.
        limit: Stop after this many tokens and cut the last document there.
        bos_id: Token to put before every document.
        skips: Is told of documents that have no tokens.
        shuffle_seed: Write the tokens of each document in another order, but for its BOS; the
            index does not change, and the longest document is held in memory.
        kept: Is told the kept fields of every document that has tokens.
        encode_seconds: Longest time that the tokenizer may take for a document, or for a piece
            of one that is cut.

    Returns:
        The index of what was written.

    Raises:
        DataError: A token is not in the model's vocabulary, the tokenizer fails or takes too
            long, or there are no tokens at all.
    """
    if bos_id is not None and not 0 <= bos_id < vocab_size:
        raise errors.ConfigError(f"BOS token {bos_id} is not below {vocab_size}", "use bos: none")
    size = _EXACT_PIECE if vocabulary.splits_at_spaces(tokenizer) else _OTHER_PIECE
    growing = _Growing(tokenizer, vocab_size, limit, bos_id, skips, kept, encode_seconds)
    shuffler = None
    if shuffle_seed is not None:
        shuffler = shuffle.Shuffler(write, shuffle_seed, fixed=0 if bos_id is None else 1)
    for batch in _batches(corpus, size):
        ids = growing.take(batch)
        if shuffler is None:
            write(ids.tobytes())
        else:
            shuffler.take(ids, growing.starts, growing.hashes)
        if growing.full:
            break
    index = growing.finish()
    if shuffler is not None:
        shuffler.finish(growing.starts, growing.hashes)
    return index


def _batches(corpus: Iterable[documents.Document], size: int) -> Iterator[list[_Piece]]:
    """Pieces of text; the first of each document comes with the document."""
    batch: list[_Piece] = []
    characters = 0
    bound = _FIRST_BATCH_CHARACTERS  # small at first, so that a small limit costs little
    for document in corpus:
        opening: documents.Document | None = document
        for text in _cut(document.text, size):
            batch.append((opening, text))
            opening = None
            characters += len(text or document.ids or "")
            if characters >= bound or len(batch) >= _BATCH_PIECES:
                yield batch
                batch, characters = [], 0
                bound = min(2 * bound, _BATCH_CHARACTERS)
    if batch:
        yield batch


def _cut(text: str, size: int) -> Iterator[str]:
    start = 0
    while len(text) - start > size:
        found = _CUT.search(text, start + size, start + size + _OVERRUN)
        stop = found.start() if found else start + size + _OVERRUN
        yield text[start:stop]
        start = stop
    yield text[start:]


class _Growing:
    """The index while it grows: flat arrays, since a corpus can have many small documents."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        vocab_size: int,
        limit: int | None,
        bos_id: int | None,
        skips: documents.SkipLog | None,
        kept: document_fields.Builder | None,
        encode_seconds: float,
    ) -> None:
        self._encode_seconds = encode_seconds
        self._documents = 0
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._limit = limit
        self._bos = np.array([] if bos_id is None else [bos_id], np.int64)
        self._skips = documents.SkipLog() if skips is None else skips
        self._kept = document_fields.Builder(()) if kept is None else kept
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

    def take(self, batch: list[_Piece]) -> Int[np.ndarray, " n"]:
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
            given = read.ids if opening is None or opening.ids is None else opening.ids
            ids = self._append(opening, np.array(given, np.int64))
            parts.append(ids)
            folds.append(np.full(len(ids), self._fold))
            self._check(ids)
        self._note(batch)
        ids = np.concatenate(parts)
        cells = ids + self._vocab_size * np.concatenate(folds)
        self._counts += np.bincount(cells, minlength=2 * self._vocab_size)
        return ids.astype(np.dtype(schema.id_dtype(self._vocab_size)).newbyteorder("<"))

    def _note(self, batch: list[_Piece]) -> None:
        """Counts the documents that were read."""
        opened = [opening for opening, _ in batch if opening is not None]
        self._documents += len(opened)
        self._latest = opened[-1] if opened else self._latest

    def _document(self, batch: list[_Piece], place: int) -> str:
        """The document that a piece of a batch is of: its number, from 1, and where it stands."""
        opened = [opening for opening, _ in batch[: place + 1] if opening is not None]
        latest = opened[-1] if opened else self._latest
        where = "" if latest is None else f", {latest.place}"
        return f"document {self._documents + len(opened):,}{where}"

    def _position(self, batch: list[_Piece]) -> str:
        """Where in the corpus a batch begins."""
        first = next((opening for opening, _ in batch if opening is not None), None)
        return f"at or after {first.place}" if first else f"after token {self._tokens}"

    def _append(
        self, opening: documents.Document | None, ids: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        if opening is not None:
            self._pass_over()
            self._waiting = self._latest = opening
        if ids.size and self._waiting is not None:
            self._open(self._waiting)
            ids = np.concatenate([self._bos, ids])
        ids = ids if self._limit is None else ids[: self._limit - self._tokens]
        self._tokens += len(ids)
        return ids

    def _check(self, ids: Int[np.ndarray, " n"]) -> None:
        """Refuses ids beyond the vocabulary; they are of the latest document."""
        if int(ids.max(initial=0)) < self._vocab_size:
            return
        outside = int(ids[ids >= self._vocab_size][0])
        name = self._tokenizer.id_to_token(outside)
        where = "" if self._latest is None else f"{self._latest.place}: "
        raise errors.DataError(
            f"{where}token {outside} ({name!r}) is not among the {self._vocab_size} of the model",
            "use the tokenizer that the model was trained with",
        )

    def finish(self) -> Index:
        """The index."""
        self._pass_over()
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
        return Index(
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

    def _pass_over(self) -> None:
        if self._waiting is not None:
            self._skips.add(self._waiting.place, skiplog.NO_TOKENS)
            self._waiting = None


def _stored_id(name: str) -> bytes:
    """An id of at most ``schema.ID_BYTES``; what had to be cut ends in a hash of the whole."""
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
