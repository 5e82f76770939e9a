"""Corpus to published token file: tokenised once, then read by every worker and every resume."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config, errors
from jaxlens.corpus import token_file, token_folder, tokenize
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import generate
from jaxlens.files import publish, temporary
from jaxlens.models.tokenizer import special, strings
from jaxlens.store import document_fields, layout, records
from jaxlens.store.hdf5 import images

logger = logging.getLogger("jaxlens")


_READER = 2
"""Counts the changes of what becomes a document or a skip, so that older token files are remade."""


def fingerprint(
    corpus: config.CorpusConfig,
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
    corpus: config.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    wanted: str,
    controls: generate.Controls = generate.NONE,
) -> token_folder.Ingested:
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
        MissingError: A source does not exist.
        DataError: A source is damaged, or holds no token.
    """
    ingested = token_folder.find(directory, wanted)
    if ingested is None:
        publish.make_directory(directory)
        temporary.remove_leftovers(directory)
        ingested = _make(corpus, tokenizer, vocab_size, bos_id, directory, wanted, controls)
    if corpus.strict and ingested.skipped_at:
        raise errors.DataError(ingested.skipped_at[0], "repair it, or read without strict")
    return ingested


def _make(
    corpus: config.CorpusConfig,
    tokenizer: Any,
    vocab_size: int,
    bos_id: int | None,
    directory: Path,
    wanted: str,
    controls: generate.Controls,
) -> token_folder.Ingested:
    """Tokenises the corpus into a folder."""
    logger.info("tokenising the corpus")
    log, fields = skip_log.SkipLog(), document_fields.Builder(corpus.keep)
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
            fields=fields,
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
        more["kept"] = fields.counts
        _say_kept(fields.counts, index.n_documents)
    data = records.encode_tokens(record, more)
    publish.publish(directory / layout.TOKEN_RECORD, data)
    return token_folder.Ingested(
        directory, record, index, dict(log.counts), tuple(skipped_at), wanted, True
    )


def _tell_special(index: token_file.Index, tokenizer: Any, bos_id: int | None) -> None:
    """Says which special tokens the text spelled out: they are not read as plain characters."""
    counts = index.token_counts.sum(axis=0)
    for number, name in special(tokenizer).items():
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
    for name, counted in counts.items():
        if counted[document_fields.MISSING] == n_documents:
            logger.warning("no document has the field %r of corpus.keep", name)
        if counted[document_fields.CUT]:
            logger.warning(
                "field %r: %s long values were cut", name, f"{counted[document_fields.CUT]:,}"
            )
        if counted[document_fields.OTHER]:
            what = "values are neither text, number nor boolean, and kept as null"
            logger.warning("field %r: %s %s", name, f"{counted[document_fields.OTHER]:,}", what)


def _documents(
    corpus: config.CorpusConfig, controls: generate.Controls, log: skip_log.SkipLog
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
    words = strings(tokenizer, index.vocab_size)
    return index.to_arrays() | {"token_strings": np.array(words, np.bytes_)}
