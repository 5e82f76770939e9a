"""Corpus to published token file: tokenised once, then read by every worker and every resume."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxlens import config as configs
from jaxlens import errors
from jaxlens.corpus import token_file, tokenize
from jaxlens.corpus.readers import documents, skips
from jaxlens.corpus.synthetic import generate
from jaxlens.files import contained, publish
from jaxlens.models import tokenizer as vocabulary
from jaxlens.store import corpus_index, document_fields, layout, records
from jaxlens.store.hdf5 import images, reading

logger = logging.getLogger("jaxlens")

FILES = (layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD)

RECORD_BYTES = 2**22
"""Most bytes of ``TOKENS.json``; its log of skips is small for any corpus."""

_COPY_BYTES = 2**23

_READER = 2
"""Counts the changes of what becomes a document or a skip, so that older token files are remade."""


@dataclass(frozen=True)
class Ingested:
    """A token file that is known to be whole.

    Attributes:
        directory: Folder of ``FILES``.
        record: Hashes and sizes.
        index: Documents and counts.
        skipped: Number of skips by reason.
        skipped_at: All of them in reading order, runs of lines together: ``file:line: reason``.
        fingerprint: Hash of what it was made from.
        fresh: Whether it was made just now.
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


def fingerprint(
    corpus: configs.CorpusConfig,
    tokenizer_sha256: str,
    vocab_size: int,
    bos_id: int | None,
    controls: generate.Controls = generate.NONE,
) -> str:
    """Hash of everything that decides the token file."""
    how: dict[str, Any] = {
        "reader": _READER,
        "vocab_size": vocab_size,
        "text_field": corpus.text_field,
        "id_field": corpus.id_field,
        "limit": corpus.limit,
        "bos": bos_id,
        "tokenizer": tokenizer_sha256,
    }
    # Token files that were made before these settings existed stay known.
    if corpus.separator is not None:
        how["separator"] = corpus.separator
    if corpus.keep:
        how["keep"] = list(corpus.keep)
    return controls.fingerprint(corpus.paths, how)


def ingest(
    corpus: configs.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    wanted: str,
    controls: generate.Controls = generate.NONE,
) -> Ingested:
    """Finds the corpus' token file in a folder, or makes it there.

    Args:
        corpus: What to read.
        tokenizer: The model's tokenizer.
        vocab_size: Tokens that the model knows.
        bos_id: Token to put before every document.
        directory: Folder for the files; created if needed.
        wanted: ``fingerprint`` of all this.
        controls: What is made or shuffled.

    Raises:
        MissingError: A source is not there.
        DataError: A source is damaged, or there is no token in it.
    """
    found = find(directory, wanted)
    if found is None:
        publish.make_directory(directory)
        publish.remove_leftovers(directory)
        found = _make(corpus, tokenizer, vocab_size, bos_id, directory, wanted, controls)
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
    controls: generate.Controls,
) -> Ingested:
    """Tokenises the corpus into a folder."""
    logger.info("tokenising the corpus")
    log, kept = documents.SkipLog(), document_fields.Builder(corpus.keep)
    with publish.stream(directory / layout.TOKEN_FILE) as stream:
        index = tokenize.build(
            _documents(corpus, controls, log),
            tokenizer,
            stream.write,
            vocab_size=vocab_size,
            limit=corpus.limit,
            bos_id=bos_id,
            skips=log,
            shuffle_seed=controls.shuffle,
            kept=kept,
            encode_seconds=corpus.encode_seconds,
        )
    _tell_special(index, tokenizer, bos_id)
    data = images.arrays_image(_arrays(index, tokenizer), {"n_tokens": index.n_tokens})
    publish.publish(directory / layout.TOKEN_INDEX, data)
    record = records.Tokens(
        sha256=stream.sha256,
        n_tokens=index.n_tokens,
        dtype=index.dtype.name,
        index_sha256=hashlib.sha256(data).hexdigest(),
    )
    skipped_at = [f"{where}: {why}" for where, why in log.entries]
    more: dict[str, Any] = {
        "fingerprint": wanted,
        "documents": index.n_documents,
        "skipped": log.counts,
        "skipped_at": skipped_at,
    }
    if corpus.keep:
        more["kept"] = kept.counts
        _say_kept(kept.counts, index.n_documents)
    data = records.encode_tokens(record, more)
    publish.publish(directory / layout.TOKEN_RECORD, data)
    return Ingested(directory, record, index, dict(log.counts), tuple(skipped_at), wanted, True)


def _tell_special(index: token_file.Index, tokenizer: Any, bos_id: int | None) -> None:
    """Says which special tokens the text spelled out: they are not read as plain characters."""
    counts = index.token_counts.sum(axis=0)
    for number, name in vocabulary.special(tokenizer).items():
        ours = index.n_documents if number == bos_id else 0
        count = int(counts[number]) - ours if number < len(counts) else 0
        if count > 0:
            logger.info(
                "%s stands in the text (%d times) and is read as the special token; "
                "corpus.separator makes such a mark a boundary of documents in .txt",
                name,
                count,
            )


def _say_kept(counts: Mapping[str, Mapping[str, int]], n_documents: int) -> None:
    """Warns of fields that no document has, and of values that are not kept whole."""
    for name, found in counts.items():
        if found[document_fields.MISSING] == n_documents:
            logger.warning("no document has the field %r of corpus.keep", name)
        if found[document_fields.CUT]:
            logger.warning(
                "field %r: %s long values were cut", name, f"{found[document_fields.CUT]:,}"
            )
        if found[document_fields.OTHER]:
            what = "values are neither text, number nor boolean, and kept as null"
            logger.warning("field %r: %s %s", name, f"{found[document_fields.OTHER]:,}", what)


def _documents(
    corpus: configs.CorpusConfig, controls: generate.Controls, log: documents.SkipLog
) -> Iterator[documents.Document]:
    if controls.generated is not None:
        return controls.generated.read(log)
    return documents.read(
        corpus.paths,
        text_field=corpus.text_field,
        id_field=corpus.id_field,
        separator=corpus.separator,
        keep=corpus.keep,
        strict=corpus.strict,
        skips=log,
    )


def _arrays(index: token_file.Index, tokenizer: Any) -> dict[str, np.ndarray]:
    """The index and the token strings, for readers that have no tokenizer."""
    strings = vocabulary.strings(tokenizer, index.vocab_size)
    return index.to_arrays() | {"token_strings": np.array(strings, np.bytes_)}


def find_whole(directory: Path, spec: Mapping[str, Any]) -> Ingested | None:
    """The token file of a run, if it is there and whole, whatever it was made from."""
    found = find(directory, None)
    if found is None:
        return None
    hashes = {"sha256": found.record.sha256, "index_sha256": found.record.index_sha256}
    of_run = spec.get("corpus")
    return found if isinstance(of_run, dict) and hashes.items() <= of_run.items() else None


def find(directory: Path, wanted: str | None) -> Ingested | None:
    """The token file, if it is there, whole, and of this corpus (or, without one, of any)."""
    path = directory / layout.TOKEN_RECORD
    try:
        raw = contained.read(path, RECORD_BYTES)
        document = records.parse_json(raw, str(path))
        record = records.parse_tokens(raw, str(path))
        made_from = document.get("fingerprint")
        if not isinstance(made_from, str) or wanted not in (None, made_from):
            return None
        # What the index claims is bounded by what lies there, before it is read.
        stored = contained.size(directory / layout.TOKEN_FILE)
        if stored != record.n_tokens * np.dtype(record.dtype).itemsize:
            return None
        for name, digest in (
            (layout.TOKEN_FILE, record.sha256),
            (layout.TOKEN_INDEX, record.index_sha256),
        ):
            with contained.opened(directory / name) as descriptor:
                if contained.sha256(directory / name, descriptor) != digest:
                    return None
        documents_there = document.get("documents")
        kept = corpus_index.n_kept(document)
        index = _index(directory / layout.TOKEN_INDEX, record, documents_there, kept)
        skipped, places = _skips(document, str(path))
    except (errors.MissingError, errors.DataError):
        return None
    return Ingested(directory, record, index, skipped, places, made_from, False)


def _index(path: Path, record: records.Tokens, n_documents: Any, n_kept: int) -> token_file.Index:
    """The index, if it is that of the record."""
    hint = "tokenise again"
    if not isinstance(n_documents, int) or not 0 < n_documents <= record.n_tokens:
        raise errors.DataError(f"{path} is of {n_documents!r:.20} documents", hint)
    index = token_file.Index.from_arrays(_read_arrays(path, n_documents, n_kept))
    said = (record.n_tokens, n_documents, record.dtype)
    if (index.n_tokens, index.n_documents, index.dtype.name) != said:
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
    """Counts and places of the skips; they are printed, so they must be what they seem."""
    counts, places = document.get("skipped"), document.get("skipped_at")
    if (
        not isinstance(counts, dict)
        or not isinstance(places, list)
        or not all(reason in skips.REASONS for reason in counts)
        or not all(type(count) is int and count > 0 for count in counts.values())
        or not all(isinstance(place, str) for place in places)
        or bool(counts) != bool(places)
    ):
        raise errors.DataError(f"{name} is damaged: its skips make no sense", "tokenise again")
    return counts, tuple(places)


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
