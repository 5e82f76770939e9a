"""Readers of text: files in, documents out one at a time, and a log of what was skipped.

A line that holds no usable text is counted and skipped; a file that cannot be read to its end is
an error, since what is missing behind the damage cannot be counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from jaxlens import config, errors
from jaxlens.corpus import archives, parquet, sources

LINE_BYTES = 256 * 2**20
"""Longest line and longest ``.txt`` file; no more than this is read at once."""

LOGGED = 1_000
"""Skips that are kept one by one; beyond, only the totals grow."""

EMPTY = "empty"
TOO_LONG = "too long"
INVALID_UTF8 = "invalid UTF-8"
LONE_SURROGATE = "lone surrogate"
BAD_JSON = "bad JSON"
TOO_DEEP = "nested too deeply"
NOT_AN_OBJECT = "not an object"
NO_TEXT = "no text field"
NOT_A_STRING = "text is not a string"
NO_TOKENS = "no tokens"

_BOM = b"\xef\xbb\xbf"
# Raw control characters inside strings are common in scraped text, and nothing is lost.
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: Its own id, or ``file:line`` (``.txt``: ``file``); never an absolute path.
        text: Neither empty nor blank, and encodable as UTF-8.
        source: ``file:line`` (``.txt``: ``file``), for messages.
    """

    id: str
    text: str
    source: str


@dataclass
class SkipLog:
    """What was read and what was skipped; flat in memory.

    Attributes:
        documents: Documents that were usable.
        counts: Skips by reason.
        entries: The first ``LOGGED`` skips, as ``(source, reason)``.
    """

    documents: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    entries: list[tuple[str, str]] = field(default_factory=list)

    def add(self, source: str, reason: str) -> None:
        """Counts one skip."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self.entries) < LOGGED:
            self.entries.append((source, reason))

    @property
    def skipped(self) -> int:
        """Number of skips."""
        return sum(self.counts.values())


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
        strict: Stop at the first line that would be skipped.
        skips: Is told of every document and every skip.

    Raises:
        MissingError: See ``expand``; or an optional package is not installed.
        DataError: A file is damaged or ends early, a Parquet file has no such column, a
            ``.txt`` file is larger than ``LINE_BYTES``; with ``strict``, any malformed line.
        StorageError: The system refuses to read.
    """
    log = SkipLog() if skips is None else skips
    for source in sources.find(paths):
        for where, found in _items(source, text_field, id_field):
            reason = found if isinstance(found, str) else _fault(found.text)
            if isinstance(found, Document) and not reason:
                log.documents += 1
                yield found
            elif strict:
                raise errors.DataError(f"{where}: {reason}", "repair it, or read without strict")
            else:
                log.add(where, reason)


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
    source: sources.Source, text_field: str, id_field: str
) -> Iterator[tuple[str, Document | str]]:
    """Pairs of ``file:line`` and a document, or the reason why there is none."""
    if source.path is None:
        return _packaged()
    lower = source.path.lower()
    if lower.endswith(".parquet"):
        return _table_rows(source.name, source.path, text_field, id_field)
    if lower.endswith(tuple(".txt" + packing for packing in archives.SUFFIXES)):
        return _plain(source.name, source.path)
    return _json_lines(source.name, source.path, text_field, id_field)


def _topics() -> dict[str, str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise errors.MissingError(
            "this Python has no help texts (pydoc_data)", "name a corpus with --corpus PATH"
        ) from error
    return dict(sorted(topics.items()))


def _packaged() -> Iterator[tuple[str, Document | str]]:
    for topic, text in _topics().items():
        name = f"pydoc:{topic}"
        yield name, Document(name, text, name)


def _plain(name: str, path: str) -> Iterator[tuple[str, Document | str]]:
    with archives.opened(path) as stream:
        data = stream.read(LINE_BYTES + 1)
    if len(data) > LINE_BYTES:
        # Cutting it would invent documents; skipping it would lose most of a corpus.
        raise errors.DataError(
            f"{path} is one document of more than {LINE_BYTES} bytes",
            "write one document a line, as .jsonl",
        )
    data = data.removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield f"{name}:{line}", INVALID_UTF8
        return
    yield name, Document(name, text.replace("\r\n", "\n"), name)


def _json_lines(
    name: str, path: str, text_field: str, id_field: str
) -> Iterator[tuple[str, Document | str]]:
    with archives.opened(path) as stream:
        for number, line in enumerate(_lines(stream), 1):
            where = f"{name}:{number}"
            if line is None:
                yield where, TOO_LONG
            else:
                whole = line.removeprefix(_BOM) if number == 1 else line
                yield where, _parse(whole, where, text_field, id_field)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines; None for one longer than the bound."""
    while line := stream.readline(LINE_BYTES + 1):
        if len(line) <= LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(io.DEFAULT_BUFFER_SIZE)
        yield None


def _parse(line: bytes, where: str, text_field: str, id_field: str) -> Document | str:
    if not line or line.isspace():
        return EMPTY
    try:
        record = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return INVALID_UTF8
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return BAD_JSON
    if not isinstance(record, dict):
        return NOT_AN_OBJECT
    return _document(record.get(text_field), record.get(id_field), where)


def _document(text: Any, ident: Any, where: str) -> Document | str:
    if text is None:
        return NO_TEXT
    if not isinstance(text, str):
        return NOT_A_STRING
    usable = isinstance(ident, (str, int)) and not isinstance(ident, bool)
    return Document((str(ident) if usable else "") or where, text, where)


def _fault(text: str) -> str:
    """Why a text cannot be used; empty where it can."""
    if not text or text.isspace():
        return EMPTY
    if text.isascii():
        return ""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode("utf-8")
        return ""
    return LONE_SURROGATE


def _table_rows(
    name: str, path: str, text_field: str, id_field: str
) -> Iterator[tuple[str, Document | str]]:
    for number, row in enumerate(parquet.rows(path, text_field, id_field), 1):
        where = f"{name}:{number}"
        yield where, INVALID_UTF8 if row is None else _document(*row, where)
