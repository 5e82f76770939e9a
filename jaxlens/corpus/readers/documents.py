"""Reading documents from files one at a time, with a log of what is skipped.

A line without usable text is counted and skipped; a file that cannot be read to its end is an
error, since what is lost behind the damage cannot be counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config, errors
from jaxlens.corpus.readers import formats, items, missing_text, skip_log, sources
from jaxlens.files import refusals

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True, slots=True)
class Document:
    """One text, or one line of tokens.

    Attributes:
        id: Its own id, or ``file:line`` (``.txt``: ``file``); never an absolute path.
        text: Neither empty nor blank, and encodable as UTF-8; empty where there are ``ids``.
        location: Where it is, for messages and the skip log.
        ids: Its tokens, where no text can say them: random ones are not what the tokenizer
            makes of their text.
        kept: Values of the fields that are kept, as they stand there.
    """

    id: str
    text: str
    location: skip_log.Location
    ids: tuple[int, ...] | None = None
    kept: tuple[Any, ...] = ()

    def digest(self) -> bytes:
        """Eight bytes that name the content: of the text, or of the ids as 32-bit numbers."""
        data = (
            self.text.encode("utf-8") if self.ids is None else np.array(self.ids, "<u4").tobytes()
        )
        return hashlib.blake2b(data, digest_size=8).digest()


def expand(paths: Iterable[str | Path]) -> list[Path]:
    """The files behind names of files, folders and patterns, in reading order.

    Folders are searched to any depth, in sorted order; hidden files and other suffixes in them
    are ignored. A file reached twice is read once. ``packaged`` stands for no file.

    Raises:
        MissingError: A name matches nothing.
        DataError: A named file has an unsupported suffix, or a file is not a regular file.
        StorageError: The system refused to list or inspect.
    """
    return [Path(source.path) for source in sources.find(paths) if source.path is not None]


def read(
    paths: Iterable[str | Path],
    *,
    text_field: str = "text",
    id_field: str = "id",
    separator: str | None = None,
    keep: Sequence[str] = (),
    strict: bool = False,
    skips: skip_log.SkipLog | None = None,
) -> Iterator[Document]:
    """Reads documents one at a time, in bounded memory.

    ``.txt`` is one document, or as many as a separator parts it into; a member of ``.tar`` is as a
    file; JSON lines, tables and arrays of JSON hold one a record, counted from 1. See ``formats``.
    A byte-order mark at the start is dropped, CRLF in ``.txt`` becomes LF.

    Args:
        paths: See ``expand``; ``packaged`` is one document a topic of Python's help.
        text_field: Field or column of the text; ``doc.text`` is a field of a field.
        id_field: Field or column of the id, a string or an integer, where there is one.
        separator: What stands between two documents of a ``.txt``.
        keep: Fields or columns whose values are wanted, in this order; None where there is none.
        strict: Stop at the first line that would be skipped.
        skips: Counts every document and every skip.

    Raises:
        MissingError: See ``expand``; or an optional package is not installed.
        DataError: A file is damaged or ends early, a table has no such column, a
            ``.txt`` file is larger than ``json_lines.LINE_BYTES``; with ``strict``, any malformed
            line.
        StorageError: The system refused to read.
    """
    log = skip_log.SkipLog() if skips is None else skips
    survey = sources.survey(paths)
    for line in survey.report():
        logger.info("corpus: %s", line)
    for source in survey.sources:
        account = missing_text.Account(source, text_field, log)
        request = items.Request(items.Fields((text_field, id_field, *keep)), separator)
        for location, values in _items(source, request):
            document = _document(values, location)
            if isinstance(document, Document):
                del values
                log.documents += 1
                missing_text.warn(log)
                yield document
            elif strict:
                raise errors.DataError(
                    f"{location}: {document}", "repair it, or read without strict"
                )
            else:
                log.add(location, document)
                account.skip(location, document, values)
        account.finish(request.fields)


def fingerprint(paths: Iterable[str | Path], options: Mapping[str, Any]) -> str:
    """The sha256 that says which text is read, wherever it lies.

    Args:
        paths: See ``expand``.
        options: What else decides the documents; JSON values.

    Returns:
        Digest, in hexadecimal, of the options and of every file's relative name and bytes.
    """
    digest = hashlib.sha256(config.canonical(options))
    for source in sources.find(paths):
        digest.update(source.name.encode("utf-8") + b"\0" + _content(source.path))
    return digest.hexdigest()


def _content(path: str | None) -> bytes:
    if path is None:
        return hashlib.sha256(json.dumps(_topics()).encode("ascii")).digest()
    with refusals.reading(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _items(source: sources.Source, request: items.Request) -> Iterator[items.Item]:
    """The records of a source."""
    if source.path is None:
        return _packaged(source)
    return formats.FORMATS[formats.suffix(source.path)].read(source, request)


def _topics() -> dict[str, str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise errors.MissingError(
            "this Python has no help texts (pydoc_data)", "name a corpus with --corpus PATH"
        ) from error
    return dict(sorted(topics.items()))


def _packaged(source: sources.Source) -> Iterator[items.Item]:
    for topic, text in _topics().items():
        name = f"{source.name}:{topic}"
        yield skip_log.Location(source.number, 0, name), (text, name)


def _document(values: items.Found, location: skip_log.Location) -> Document | str:
    """The document of a record, or the reason why it has none."""
    if isinstance(values, str):
        return values
    text, ident, *fields = values
    if text is None:
        return skip_log.NO_TEXT
    if isinstance(text, bytes):  # a column of Arrow that does not say that it is text
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            return skip_log.INVALID_UTF8
    if not isinstance(text, str):
        return skip_log.NOT_A_STRING
    if reason := _fault(text):
        return reason
    usable = isinstance(ident, (str, int)) and not isinstance(ident, bool)
    return Document(
        (str(ident) if usable else "") or str(location), text, location, kept=tuple(fields)
    )


def _fault(text: str) -> str:
    """Why a text cannot be used; empty where it can."""
    if not text or text.isspace():
        return skip_log.EMPTY
    if text.isascii():
        return ""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode("utf-8")
        return ""
    return skip_log.LONE_SURROGATE
