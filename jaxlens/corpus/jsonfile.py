"""``.json`` files: lines of JSON, one array of records, or one record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jaxlens import errors
from jaxlens.corpus import archives, items, lines, skiplog, suspects

_LOOKED_AT = 100
"""Lines in which a record shows that a file is lines of JSON, though its first is damaged."""


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The records of a ``.json`` file, counted from 1.

    An array, and an object of several lines, is held in memory whole.

    Raises:
        DataError: It is one value that is too large, or no JSON.
    """
    assert source.path is not None
    decoder = lines.decoder(request.fields.parts)
    records = None
    if not _has_record(source.path, decoder, within=1):
        try:
            records = _whole(source.path, decoder)
        except errors.DataError:
            if not _has_record(source.path, decoder, within=_LOOKED_AT):
                raise
    if records is None:
        yield from lines.read_file(source, request)
        return
    records.reverse()  # so that each can be let go of
    line = 0
    while records:
        line += 1
        found = lines.checked(records.pop())
        yield source.place(line), request.fields.pick(found) if isinstance(found, dict) else found


def _has_record(path: str, decoder: json.JSONDecoder, within: int) -> bool:
    """Whether one of the first lines that are not blank is a record of its own."""
    with archives.opened(path) as stream:
        mark = lines.BOM
        while within and (line := lines.next_line(stream)) != b"":
            if line is not None:
                found = lines.record(line.removeprefix(mark), decoder)
                if isinstance(found, dict) or found == skiplog.DUPLICATE_KEY:
                    return True
                within -= found != skiplog.EMPTY
            else:
                within -= 1
            mark = b""
    return False


def _whole(path: str, decoder: json.JSONDecoder) -> list[Any]:
    with archives.opened(path) as stream:
        data = stream.read(lines.LINE_BYTES + 1)
    remedy = "write one record a line, as .jsonl; with jq: jq -c '.[]' FILE.json > FILE.jsonl"
    if len(data) > lines.LINE_BYTES or lines.is_crowded(data):
        raise errors.DataError(
            f"{path} is one JSON value of more than {lines.LINE_BYTES >> 20} MiB "
            f"or {lines.MOST_VALUES} values",
            remedy,
        )
    if not data.removeprefix(lines.BOM).strip():
        return []
    try:
        found = decoder.decode(data.removeprefix(lines.BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise errors.DataError(f"{path} is not UTF-8: {error}", suspects.not_utf8(path)) from error
    except RecursionError as error:
        raise errors.DataError(f"{path} is nested too deeply", remedy) from error
    except ValueError as error:
        raise errors.DataError(
            f"{path} is neither one JSON value nor lines of JSON: {error}",
            "write one record a line, as .jsonl; with jq: jq -c . FILE.json > FILE.jsonl",
        ) from error
    return found if isinstance(found, list) else [found]
