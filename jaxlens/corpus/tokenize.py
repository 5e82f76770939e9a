"""Tokenising: documents in, a token file and its index out, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import tokenizers

from jaxlens import errors
from jaxlens.corpus import index_builder, token_file
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import shuffle
from jaxlens.models import encoding
from jaxlens.models.tokenizer import (
    load_tokenizer,
    splits_at_spaces,
    strings,
    tokenizer_digest,
    word_tables,
)
from jaxlens.store import document_fields

load_tokenizer = load_tokenizer
tokenizer_digest = tokenizer_digest
strings = strings
word_tables = word_tables

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


def build(
    corpus: Iterable[documents.Document],
    tokenizer: tokenizers.Tokenizer,
    write: Callable[[bytes], object],
    *,
    vocab_size: int,
    limit: int | None = None,
    bos_id: int | None = None,
    skips: skip_log.SkipLog | None = None,
    shuffle_seed: int | None = None,
    fields: document_fields.Builder | None = None,
    encode_seconds: float = encoding.SECONDS,
) -> token_file.Index:
    """Tokenises documents on all cores and writes their ids, in bounded memory.

    Special tokens written out in the text are read as such; none are added. Long documents are
    cut where a space or a line end follows a character. For GPT-2's tokenizer this changes no
    id; with others only documents of over four million characters are cut. Only a run of a
    million characters without such a place is cut inside. A document with ids is taken
    as it is.

    Args:
        corpus: Documents; read a little ahead of ``limit``.
        tokenizer: See ``load_tokenizer``.
        write: Takes the ids, little-endian, in the type that the index names.
        vocab_size: Tokens that the model knows.
        limit: Stop after this many tokens and cut the last document there.
        bos_id: Token to put before every document.
        skips: Counts the documents that have no tokens.
        shuffle_seed: Write the tokens of each document in another order, but for its BOS; the
            index does not change, and the longest document is held in memory.
        fields: Takes the kept fields of every document that has tokens.
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
    size = _EXACT_PIECE if splits_at_spaces(tokenizer) else _OTHER_PIECE
    builder = index_builder.IndexBuilder(
        tokenizer, vocab_size, limit, bos_id, skips, fields, encode_seconds
    )
    shuffler = None
    if shuffle_seed is not None:
        shuffler = shuffle.Shuffler(write, shuffle_seed, fixed=0 if bos_id is None else 1)
    for batch in _batches(corpus, size):
        ids = builder.take(batch)
        if shuffler is None:
            write(ids.tobytes())
        else:
            shuffler.take(ids, builder.starts, builder.hashes)
        if builder.full:
            break
    index = builder.finish()
    if shuffler is not None:
        shuffler.finish(builder.starts, builder.hashes)
    return index


def _batches(
    corpus: Iterable[documents.Document], size: int
) -> Iterator[list[index_builder.Piece]]:
    """Pieces of text; the first of each document comes with the document."""
    batch: list[index_builder.Piece] = []
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
        match = _CUT.search(text, start + size, start + size + _OVERRUN)
        stop = match.start() if match else start + size + _OVERRUN
        yield text[start:stop]
        start = stop
    yield text[start:]
