"""JSON of a run, read with bounds: what is larger or deeper than a run writes is damage."""

from __future__ import annotations

import json
from typing import Any

from jaxlens import errors

MAX_VALUES = 1 << 17
"""JSON of more values takes up to thirty times its size in RAM."""

MAX_LEVELS = 100
"""JSON that is nested deeper would exhaust the stack of whoever walks it."""


def parse(raw: bytes, name: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DataError: It is something else.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise errors.DataError(
            f"{name} is damaged: it has more values than make sense", errors.RECOMPUTE
        )
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise errors.DataError(f"{name} is damaged: not JSON", errors.RECOMPUTE) from error
    if not isinstance(document, dict) or _is_deep(document):
        raise errors.DataError(
            f"{name} is damaged: not a JSON object, or too deep", errors.RECOMPUTE
        )
    return document


def _is_deep(document: object) -> bool:
    level: list[Any] = [document]
    for _ in range(MAX_LEVELS):
        parts = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for part in parts for inner in part if isinstance(inner, (dict, list))]
    return bool(level)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
