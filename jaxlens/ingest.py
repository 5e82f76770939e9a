"""Corpus to published token file: tokenised once, then read by every worker and every resume."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config as configs
from jaxlens import errors
from jaxlens.corpus import documents, tokenfile, tokens, vocabulary
from jaxlens.store import access, hdf, image, layout, publish, records

logger = logging.getLogger("jaxlens")

FILES = (layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD)

_COPY_BYTES = 2**23


@dataclass(frozen=True)
class Ingested:
    """A token file that is known to be whole.

    Attributes:
        directory: Folder of ``FILES``.
        record: Hashes and sizes.
        index: Documents and counts.
        skipped: Number of skips by reason.
        skipped_at: The first of them, each with its file and line.
        fingerprint: Hash of what it was made from.
        fresh: Whether it was made just now.
    """

    directory: Path
    record: records.Tokens
    index: tokenfile.Index
    skipped: dict[str, int]
    skipped_at: tuple[str, ...]
    fingerprint: str
    fresh: bool

    def open(self) -> tokenfile.TokenFile:
        """The token file, for reading."""
        return tokenfile.TokenFile(self.directory / layout.TOKEN_FILE, self.index)


def fingerprint(corpus: configs.CorpusConfig, tokenizer_sha256: str, bos_id: int | None) -> str:
    """Hash of everything that decides the token file."""
    how = {
        "text_field": corpus.text_field,
        "id_field": corpus.id_field,
        "limit": corpus.limit,
        "bos": bos_id,
        "tokenizer": tokenizer_sha256,
    }
    return documents.fingerprint(corpus.paths, how)


def ingest(
    corpus: configs.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    wanted: str,
) -> Ingested:
    """Finds the corpus' token file in a folder, or makes it there.

    Args:
        corpus: What to read.
        tokenizer: The model's tokenizer.
        vocab_size: Tokens that the model knows.
        bos_id: Token to put before every document.
        directory: Folder for the files; created if needed.
        wanted: ``fingerprint`` of all this.

    Raises:
        MissingError: A source is not there.
        DataError: A source is damaged, or there is no token in it.
    """
    found = find(directory, wanted)
    if found is None:
        publish.make_directory(directory)
        publish.remove_leftovers(directory)
        found = _make(corpus, tokenizer, vocab_size, bos_id, directory, wanted)
    if corpus.strict and found.skipped_at:
        raise errors.DataError(found.skipped_at[0], "repair it, or read without strict")
    return found


def _make(
    corpus: configs.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    wanted: str,
) -> Ingested:
    """Tokenises the corpus into a folder."""
    logger.info("tokenising the corpus")
    log = documents.SkipLog()
    index, sha256 = _tokenize(corpus, tokenizer, vocab_size, bos_id, directory, log)
    data = image.arrays_image(_arrays(index, tokenizer), {"n_tokens": index.n_tokens})
    publish.publish(directory / layout.TOKEN_INDEX, data)
    record = records.Tokens(
        sha256=sha256,
        n_tokens=index.n_tokens,
        dtype=index.dtype.name,
        index_sha256=hashlib.sha256(data).hexdigest(),
    )
    skipped_at = [f"{where}: {why}" for where, why in log.entries]
    more = {
        "fingerprint": wanted,
        "documents": index.n_documents,
        "skipped": log.counts,
        "skipped_at": skipped_at,
    }
    data = records.encode_tokens(record, more)
    publish.publish(directory / layout.TOKEN_RECORD, data)
    return Ingested(directory, record, index, dict(log.counts), tuple(skipped_at), wanted, True)


def _tokenize(
    corpus: configs.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    log: documents.SkipLog,
) -> tuple[tokenfile.Index, str]:
    """Writes the token file; returns its index and its sha256."""
    texts = documents.read(
        corpus.paths,
        text_field=corpus.text_field,
        id_field=corpus.id_field,
        strict=corpus.strict,
        skips=log,
    )
    with publish.stream(directory / layout.TOKEN_FILE) as stream:
        index = tokens.build(
            texts,
            tokenizer,
            stream.write,
            vocab_size=vocab_size,
            limit=corpus.limit,
            bos_id=bos_id,
            skips=log,
        )
    return index, stream.sha256


def _arrays(index: tokenfile.Index, tokenizer: Any) -> dict[str, np.ndarray]:
    """The index and the token strings, for readers that have no tokenizer."""
    strings = vocabulary.strings(tokenizer, index.vocab_size)
    return index.to_arrays() | {"token_strings": np.array(strings, np.bytes_)}


def find(directory: Path, wanted: str) -> Ingested | None:
    """The token file, if it is there, whole, and of this corpus."""
    path = directory / layout.TOKEN_RECORD
    try:
        raw = access.read(path, layout.LARGE)
        document = records.parse_json(raw, str(path))
        record = records.parse_tokens(raw, str(path))
        if document.get("fingerprint") != wanted:
            return None
        for name, digest in (
            (layout.TOKEN_FILE, record.sha256),
            (layout.TOKEN_INDEX, record.index_sha256),
        ):
            with access.opened(directory / name) as descriptor:
                if access.sha256(directory / name, descriptor) != digest:
                    return None
        arrays, _ = hdf.read_arrays(directory / layout.TOKEN_INDEX)
        index = tokenfile.Index.from_arrays(arrays)
    except (errors.MissingError, errors.DataError):
        return None
    skipped, places = document.get("skipped", {}), tuple(document.get("skipped_at", ()))
    return Ingested(directory, record, index, skipped, places, wanted, False)


def place(ingested: Ingested, target: Path) -> Ingested:
    """Puts a token file into a run's own folder, unless it is there already, whole.

    The copy takes two bytes a token, beside some hundred bytes of rows.
    """
    if target == ingested.directory:
        return ingested
    found = find(target, ingested.fingerprint)
    if found is not None:
        return found
    publish.make_directory(target)
    for name in FILES:
        _copy(ingested.directory / name, target / name)
    return dataclasses.replace(ingested, directory=target)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, publish.stream(target) as writer:
        while block := reader.read(_COPY_BYTES):
            writer.write(block)
