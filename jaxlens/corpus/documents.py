"""Readers of text: files in, documents out one at a time, and a log of what was skipped.

A line that holds no usable text is counted and skipped; a file that cannot be read to its end is
an error, since what is missing behind the damage cannot be counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config, errors
from jaxlens.corpus import archives, lines, parquet, skiplog, sources

SkipLog = skiplog.SkipLog


@dataclass(frozen=True, slots=True)
class Document:
    """One text, or one line of tokens.

    Attributes:
        id: Its own id, or ``file:line`` (``.txt``: ``file``); never an absolute path.
        text: Neither empty nor blank, and encodable as UTF-8; empty where there are ``ids``.
        place: Where it stands.
        ids: Its tokens, where no text can say them: random ones are not what the tokenizer
            makes of their text.
        kept: Values of the fields that are kept, as they stand there.
    """

    id: str
    text: str
    place: skiplog.Place
    ids: tuple[int, ...] | None = None
    kept: tuple[Any, ...] = ()

    def digest(self) -> bytes:
        """Eight bytes that name the content: of the text, or of the ids as 32-bit numbers."""
        data = (
            self.text.encode("utf-8") if self.ids is None else np.array(self.ids, "<u4").tobytes()
        )
        return hashlib.blake2b(data, digest_size=8).digest()


_Item = tuple[skiplog.Place, "Document | str"]


def expand(paths: Iterable[str | Path]) -> list[Path]:
    """The files behind names of files, folders and patterns, in reading order.

    Folders are searched to any depth, in sorted order; hidden files and other suffixes in them
    are ignored. A file reached twice is read once. ``packaged`` stands for no file.

    Raises:
        MissingError: A name matches nothing.
        DataError: A named file has an unsupported suffix, or a file is no regular file.
        StorageError: The system refuses to list or inspect.
    """
    return [Path(source.path) for source in sources.find(paths) if source.path is not None]


def read(
    paths: Iterable[str | Path],
    *,
    text_field: str = "text",
    id_field: str = "id",
    keep: Sequence[str] = (),
    strict: bool = False,
    skips: SkipLog | None = None,
) -> Iterator[Document]:
    """Reads documents one at a time, in bounded memory.

    ``.txt`` is one document; ``.jsonl`` and ``.ndjson`` are one a line; Parquet is one a row,
    counted from 1. A byte-order mark at the start is dropped, CRLF in ``.txt`` becomes LF.

    Args:
        paths: See ``expand``; ``packaged`` is one document a topic of Python's help.
        text_field: Field or column of the text.
        id_field: Field or column of the id, a string or an integer, where there is one.
        keep: Fields or columns whose values are wanted, in this order; None where there is none.
        strict: Stop at the first line that would be skipped.
        skips: Is told of every document and every skip.

    Raises:
        MissingError: See ``expand``; or an optional package is not installed.
        DataError: A file is damaged or ends early, a Parquet file has no such column, a
            ``.txt`` file is larger than ``lines.LINE_BYTES``; with ``strict``, any malformed line.
        StorageError: The system refuses to read.
    """
    log = SkipLog() if skips is None else skips
    for source in sources.find(paths):
        for place, found in _items(source, text_field, id_field, keep):
            reason = found if isinstance(found, str) else _fault(found.text)
            if isinstance(found, Document) and not reason:
                log.documents += 1
                yield found
            elif strict:
                raise errors.DataError(f"{place}: {reason}", "repair it, or read without strict")
            else:
                log.add(place, reason)


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
    with archives.refusals(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _items(
    source: sources.Source, text_field: str, id_field: str, keep: Sequence[str]
) -> Iterator[_Item]:
    """Pairs of a place and a document, or the reason why there is none."""
    if source.path is None:
        return _packaged(source)
    lower = source.path.lower()
    if lower.endswith(".parquet"):
        return _numbered(source, parquet.rows(source.path, text_field, id_field, keep))
    if lower.endswith(tuple(".txt" + packing for packing in archives.SUFFIXES)):
        return _whole(source, source.path)
    return _numbered(source, _json_lines(source.path, text_field, id_field, keep))


def _topics() -> dict[str, str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise errors.MissingError(
            "this Python has no help texts (pydoc_data)", "name a corpus with --corpus PATH"
        ) from error
    return dict(sorted(topics.items()))


def _packaged(source: sources.Source) -> Iterator[_Item]:
    for topic, text in _topics().items():
        name = f"{source.name}:{topic}"
        place = skiplog.Place(source.number, 0, name)
        yield place, Document(name, text, place)


def _whole(source: sources.Source, path: str) -> Iterator[_Item]:
    with archives.opened(path) as stream:
        data = stream.read(lines.LINE_BYTES + 1)
    if len(data) > lines.LINE_BYTES:
        # Cutting it would invent documents; skipping it would lose most of a corpus.
        raise errors.DataError(
            f"{path} is one document of more than {lines.LINE_BYTES} bytes",
            "write one document a line, as .jsonl",
        )
    data = data.removeprefix(lines.BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield skiplog.Place(source.number, line, source.name), skiplog.INVALID_UTF8
        return
    del data
    text = text.replace("\r\n", "\n")
    place = skiplog.Place(source.number, 0, source.name)
    yield place, Document(source.name, text, place)


def _json_lines(
    path: str, text_field: str, id_field: str, keep: Sequence[str]
) -> Iterator[lines.Found]:
    with archives.opened(path) as stream:
        yield from lines.read(stream, text_field, id_field, keep)


def _numbered(source: sources.Source, records: Iterable[lines.Found]) -> Iterator[_Item]:
    """Documents of a file that holds many, counted from 1."""
    for line, found in enumerate(records, 1):
        place = skiplog.Place(source.number, line, source.name)
        yield place, found if isinstance(found, str) else _document(place, *found)


def _document(place: skiplog.Place, text: Any, ident: Any, *kept: Any) -> Document | str:
    if text is None:
        return skiplog.NO_TEXT
    if not isinstance(text, str):
        return skiplog.NOT_A_STRING
    usable = isinstance(ident, (str, int)) and not isinstance(ident, bool)
    return Document((str(ident) if usable else "") or str(place), text, place, kept=kept)


def _fault(text: str) -> str:
    """Why a text cannot be used; empty where it can."""
    if not text or text.isspace():
        return skiplog.EMPTY
    if text.isascii():
        return ""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode("utf-8")
        return ""
    return skiplog.LONE_SURROGATE
