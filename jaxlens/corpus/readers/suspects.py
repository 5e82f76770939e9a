"""What a file may be in which no record is usable, and the command that makes text of it.

Looked at is only the beginning of the file, and only where nothing in it could be used.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import shlex
from typing import Any, NamedTuple

from jaxlens import errors
from jaxlens.corpus.readers import json_lines
from jaxlens.files import compression, file_types, refusals

_HEAD_BYTES = 2**16

_JSON = (".jsonl", ".ndjson", ".json")
_TEXTS = (*_JSON, ".txt", ".csv", ".tsv")

_OTHERS = {
    b"PK\x03\x04": (
        "is a ZIP archive, or a document of an office program",
        "unpack it, or save its text",
    ),
    b"%PDF": ("is a PDF", "take its text out: pdftotext writes it"),
    b"\xfd7zXZ": ("is compressed with xz", "decompress it: xz -d"),
    b"\x89HDF": ("is an HDF5 file", "save its text as .jsonl"),
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        ("is a pickle, which can run code and is never read", "save its text as .jsonl"),
    ),
}
"""First bytes of files that are not read -> what they are, and the remedy."""

_UNDEFINED = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that are no character of Windows-1252."""


class Suspect(NamedTuple):
    """What a file may be.

    Attributes:
        what: After the name of the file.
        remedy: What to do, with the whole command.
    """

    what: str
    remedy: str


def of_file(path: str) -> Suspect | None:
    """What a file may be in which no record is usable; None where that is not known."""
    kind = _parts(path)[1].lower()
    if kind not in _TEXTS:
        return None
    raw, head = _heads(path)
    if not raw.strip():
        what = "is empty" if not raw else "holds nothing but white space"
        return Suspect(what, "leave it out, or fetch it again")
    packed = head is None or head != raw
    if not packed and (found := _binary(path, raw)) is not None:
        return found
    if head is None:
        return None
    if (found := _encoded(path, head)) is not None:
        return found
    return _json(path, head) if kind in _JSON else None


def not_utf8(path: str) -> str:
    """The command that makes UTF-8 of a file; a general hint where its encoding is not known."""
    _, head = _heads(path)
    found = None if head is None else _encoded(path, head)
    return found.remedy if found else "convert it to UTF-8"


def _heads(path: str) -> tuple[bytes, bytes | None]:
    """The first bytes of a file, and of what is compressed in it; None where that is damaged."""
    with refusals.reading(path), open(path, "rb") as raw:
        first = raw.read(_HEAD_BYTES)
    with contextlib.suppress(errors.JaxlensError), compression.opened(path) as stream:
        return first, stream.read(_HEAD_BYTES)
    return first, None


def _binary(path: str, head: bytes) -> Suspect | None:
    """Files that were named as another kind."""
    stem = _parts(path)[0]
    renamed = {
        b"PAR1": ("is a Parquet file", f"{stem}.parquet"),
        b"ARROW1": ("is an Arrow file", f"{stem}.arrow"),
        b"\x1f\x8b": ("is compressed with gzip", f"{path}.gz"),
        b"BZh": ("is compressed with bzip2", f"{path}.bz2"),
        b"\x28\xb5\x2f\xfd": ("is compressed with Zstandard", f"{path}.zst"),
    }
    for mark, (what, name) in renamed.items():
        if head.startswith(mark):
            return Suspect(what, f"name it so: {shlex.join(['mv', path, name])}")
    for mark, (what, remedy) in _OTHERS.items():
        if head.startswith(mark):
            return Suspect(what, remedy)
    found = file_types.pointer(head[: file_types.HEAD_BYTES])
    return None if found is None else Suspect(f"is {found[0]}", found[1])


def _encoded(path: str, head: bytes) -> Suspect | None:
    """Text in another encoding than UTF-8."""
    if (name := _wide(head)) is not None:
        return Suspect(f"is {name}, not UTF-8", _converted(path, name))
    if b"\0" in head:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        known = "ISO-8859-1" if any(byte in head for byte in _UNDEFINED) else "WINDOWS-1252"
        line = head.count(b"\n", 0, error.start) + 1
        return Suspect(
            f"is not UTF-8: line {line} has the byte 0x{head[error.start]:02x}",
            f"if it is Western European, {_converted(path, known)}",
        )
    return None


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark, or by the zeros that its ASCII has."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            return name
    even, odd = head[::2], head[1::2]
    for zeros, others, name in ((odd, even, "UTF-16LE"), (even, odd, "UTF-16BE")):
        if len(zeros) >= 8 and 2 * zeros.count(0) > len(zeros) and others.count(0) == 0:
            return name
    return None


def _converted(path: str, encoding: str) -> str:
    """The command that writes a file as UTF-8."""
    command = _command(path, f"iconv -f {encoding} -t UTF-8")
    return f"convert it: {command}"


def _command(path: str, command: str, end: str = "") -> str:
    """A command that reads a file, decompressed if need be, and writes another beside it."""
    stem, kind, packing = _parts(path)
    target = shlex.quote(f"{stem}.new{end or kind}")
    if packing:
        return f"{_UNPACK[packing]} {shlex.quote(path)} | {command} > {target}"
    return f"{command} < {shlex.quote(path)} > {target}"


def _parts(path: str) -> tuple[str, str, str]:
    """A path in three: ``a``, ``.jsonl`` and ``.gz``."""
    plain, packing = os.path.splitext(path)
    if packing.lower() not in _UNPACK:
        plain, packing = path, ""
    stem, kind = os.path.splitext(plain)
    return stem, kind, packing.lower()


_UNPACK = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".zst": "zstd -dc"}


def _json(path: str, head: bytes) -> Suspect | None:
    """JSON whose lines are no records, or whose records are no objects."""
    text = head.removeprefix(json_lines.BOM).decode("utf-8", "ignore").strip()
    of_lines = _parts(path)[1].lower() != ".json"
    if of_lines and "\r" in text and "\n" not in text:
        return _Json("has lines that end in a carriage return alone", r"tr '\r' '\n'").at(path)
    array = text.startswith("[")
    first, end = _first_value(text[1:].lstrip() if array else text)
    if isinstance(first, str):
        what = "holds texts alone, not objects with a field for the text"
        return _Json(what, f"jq -c '{'.[] | ' * array}{{text: .}}'").at(path)
    if not of_lines:
        return None
    spread = "\n" in text[:end].rstrip() or (not end and text[1:].lstrip(" \t").startswith("\n"))
    joined = text[end:].lstrip(" \t").startswith("{")
    if array or (text.startswith("{") and (spread or joined)):
        what = "is JSON that is not one record a line"
        return _Json(what, f"jq -c '.{'[]' * array}'").at(path)
    return None


def _first_value(text: str) -> tuple[Any, int]:
    """The JSON value that a text begins with, and where it ends; None and 0 for none."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0


class _Json(NamedTuple):
    what: str
    command: str

    def at(self, path: str) -> Suspect:
        return Suspect(self.what, f"convert it: {_command(path, self.command, '.jsonl')}")
