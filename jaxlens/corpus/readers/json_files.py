"""``.json`` files: lines of JSON, one array of records, or one record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jaxlens import errors
from jaxlens.corpus.readers import items, json_lines, skip_log, suspects
from jaxlens.files import compression

_LOOKED_AT = 100
"""Lines in which a record shows that a file is lines of JSON, though its first is damaged."""


def read(source: items.Source, request: items.Request) -> Iterator[items.Item]:
    """The records of a ``.json`` file, counted from 1.

    An array, and an object of several lines, is held in memory whole.

    Raises:
        DataError: It is one value that is too large, or no JSON.
    """
    assert source.path is not None
    decoder = json_lines.decoder(request.fields.parts)
    records = None
    if not _has_record(source.path, decoder, within=1):
        try:
            records = _whole(source.path, decoder)
        except errors.DataError:
            if not _has_record(source.path, decoder, within=_LOOKED_AT):
                raise
    if records is None:
        yield from json_lines.read_file(source, request)
        return
    records.reverse()  # so that each can be let go of
    line = 0
    while records:
        line += 1
        record = json_lines.checked(records.pop())
        yield (
            source.location(line),
            request.fields.pick(record) if isinstance(record, dict) else record,
        )


def _has_record(path: str, decoder: json.JSONDecoder, within: int) -> bool:
    """Whether one of the first lines that are not blank is a record of its own."""
    with compression.opened(path) as stream:
        mark = json_lines.BOM
        while within and (line := json_lines.next_line(stream)) != b"":
            if line is not None:
                record = json_lines.record(line.removeprefix(mark), decoder)
                if isinstance(record, dict) or record == skip_log.DUPLICATE_KEY:
                    return True
                within -= record != skip_log.EMPTY
            else:
                within -= 1
            mark = b""
    return False


def _whole(path: str, decoder: json.JSONDecoder) -> list[Any]:
    with compression.opened(path) as stream:
        data = stream.read(json_lines.LINE_BYTES + 1)
    remedy = "write one record a line, as .jsonl; with jq: jq -c '.[]' FILE.json > FILE.jsonl"
    if len(data) > json_lines.LINE_BYTES or json_lines.is_crowded(data):
        raise errors.DataError(
            f"{path} is one JSON value of more than {json_lines.LINE_BYTES >> 20} MiB "
            f"or {json_lines.MAX_VALUES} values",
            remedy,
        )
    if not data.removeprefix(json_lines.BOM).strip():
        return []
    try:
        value = decoder.decode(data.removeprefix(json_lines.BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise errors.DataError(f"{path} is not UTF-8: {error}", suspects.utf8_hint(path)) from error
    except RecursionError as error:
        raise errors.DataError(f"{path} is nested too deeply", remedy) from error
    except ValueError as error:
        raise errors.DataError(
            f"{path} is neither one JSON value nor lines of JSON: {error}",
            "write one record a line, as .jsonl; with jq: jq -c . FILE.json > FILE.jsonl",
        ) from error
    return value if isinstance(value, list) else [value]
