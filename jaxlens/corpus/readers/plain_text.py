"""Plain text: a file is one document, or many with a separator between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from jaxlens import errors
from jaxlens.corpus.readers import items, json_lines, skip_log
from jaxlens.files import compression, file_types

_PIECE_BYTES = 2**20


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The documents of a ``.txt`` file; with a separator they count from 1."""
    assert source.path is not None
    with compression.opened(source.path) as stream:
        yield from read_stream(stream, source.path, source.location(), request)


def read_stream(
    stream: BinaryIO, path: str, location: skip_log.Location, request: items.Request
) -> Iterator[items.Item]:
    """The documents of a stream of text.

    Args:
        stream: Bytes.
        path: What errors call it.
        location: Where it stands.
        request: What is asked for.

    Raises:
        DataError: It is one document of more than ``json_lines.LINE_BYTES``, or a pointer of Git
            LFS.
    """
    if request.separator is None:
        yield _whole(stream, path, location, request)
        return
    for number, data in enumerate(_split(stream, request.separator), 1):
        # Members of an archive count already.
        own_location = location if location.member else location._replace(line=number)
        if data is None:
            yield own_location, skip_log.TOO_LONG
            continue
        try:
            yield own_location, _values(data.decode("utf-8"), own_location, number, request)
        except UnicodeDecodeError:
            yield own_location, skip_log.INVALID_UTF8


def _whole(
    stream: BinaryIO, path: str, location: skip_log.Location, request: items.Request
) -> items.Item:
    data = stream.read(json_lines.LINE_BYTES + 1)
    if len(data) > json_lines.LINE_BYTES:
        # Cutting it would invent documents; skipping it would lose most of a corpus.
        raise errors.DataError(
            f"{path} is one document of more than {json_lines.LINE_BYTES} bytes",
            "write one document a line, as .jsonl, or say what separates them: corpus.separator",
        )
    file_types.refuse_pointer(data[: file_types.HEAD_BYTES], path)
    data = data.removeprefix(json_lines.BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return (
            location if location.member else location._replace(line=line)
        ), skip_log.INVALID_UTF8
    del data
    return location, _values(text.replace("\r\n", "\n"), location, 0, request)


def _values(
    text: str, location: skip_log.Location, number: int, request: items.Request
) -> tuple[object, ...]:
    """Text and id; nothing else is known of plain text."""
    inside = f":{number}" if location.member and number else ""
    return text, f"{location}{inside}", *(None for _ in request.fields.names[2:])


def _split(stream: BinaryIO, separator: str) -> Iterator[bytes | None]:
    """The bytes between separators, CRLF as LF; None for more than ``json_lines.LINE_BYTES``.

    A line end right before or after a visible separator belongs to it, and nothing but white
    space after the last one is not a document.
    """
    mark = separator.encode("utf-8")
    edge = b"\n" if separator.strip() else b""
    held, too_long, n_marks = bytearray(), False, 0
    for piece in _pieces(stream):
        searched = max(0, len(held) - len(mark) + 1)
        held += piece
        begin = 0
        while (at := held.find(mark, max(begin, searched))) >= 0:
            data = bytes(held[begin:at]).removeprefix(edge if n_marks else b"")
            too_long |= len(data) > json_lines.LINE_BYTES
            yield None if too_long else data.removesuffix(edge)
            too_long, n_marks, begin = False, n_marks + 1, at + len(mark)
        del held[:begin]
        if len(held) > json_lines.LINE_BYTES + len(mark):
            too_long = True
            del held[: len(held) - len(mark)]
    data = bytes(held).removeprefix(edge if n_marks else b"")
    if too_long or len(data) > json_lines.LINE_BYTES:
        yield None
    elif data.strip() or not n_marks:
        yield data


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """The stream without its byte-order mark, CRLF as LF."""
    carried = stream.read(len(json_lines.BOM)).removeprefix(json_lines.BOM)
    while piece := stream.read(_PIECE_BYTES):
        piece = carried + piece
        carried = b"\r" if piece.endswith(b"\r") else b""
        yield piece.removesuffix(carried).replace(b"\r\n", b"\n")
    yield carried
