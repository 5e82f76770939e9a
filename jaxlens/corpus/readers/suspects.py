"""What a file may be in which no record is usable, and the command that makes text of it.

Only the beginning of the file is examined, and only where no record in it is usable.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple

from jaxlens import errors
from jaxlens.corpus.readers import json_lines
from jaxlens.files import commands, compression, encodings, file_types, refusals

_HEAD_BYTES = 2**16

_JSON = (".jsonl", ".ndjson", ".json")
_TEXTS = (*_JSON, ".txt", ".csv", ".tsv")


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
    suffix = commands.split_name(path)[1].lower()
    if suffix not in _TEXTS:
        return None
    raw, head = _heads(path)
    if not raw.strip():
        what = "is empty" if not raw else "holds nothing but white space"
        return Suspect(what, "leave it out, or fetch it again")
    compressed = head is None or head != raw
    if not compressed and (kind := file_types.of_text(path, raw)) is not None:
        return Suspect(f"is {kind[0]}", kind[1])
    if head is None:
        return None
    if (problem := encodings.check(path, head)) is not None:
        return Suspect(*problem)
    return _json(path, head) if suffix in _JSON else None


def utf8_hint(path: str) -> str:
    """How to convert a file to UTF-8."""
    _, head = _heads(path)
    return encodings.hint(path, head or b"")


def _heads(path: str) -> tuple[bytes, bytes | None]:
    """The first bytes of a file, and of what is compressed in it; None where that is damaged."""
    with refusals.reading(path), open(path, "rb") as raw:
        first = raw.read(_HEAD_BYTES)
    with contextlib.suppress(errors.JaxlensError), compression.opened(path) as stream:
        return first, stream.read(_HEAD_BYTES)
    return first, None


def _json(path: str, head: bytes) -> Suspect | None:
    """JSON whose lines are not records, or whose records are not objects."""
    text = head.removeprefix(json_lines.BOM).decode("utf-8", "ignore").strip()
    of_lines = commands.split_name(path)[1].lower() != ".json"
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
        return Suspect(self.what, f"convert it: {commands.convert(path, self.command, '.jsonl')}")
