"""How much a file of prompts may hold: all of it, and what is read of it, stays in memory."""

from __future__ import annotations

from typing import Any

from jaxlens import errors

MAX_BYTES = 2**28
"""Bytes of the file, decompressed."""

MAX_ROWS = 1_000_000
"""Rows of the file."""

MAX_VALUES = 10_000_000
"""Cells of a table; in JSON commas and brackets, in Parquet also the members of lists."""

MAX_DEPTH = 64
"""Levels of lists and objects inside each other."""

TOO_DEEP = f"row is nested more than {MAX_DEPTH} levels deep"


class Count:
    """What was met so far of a file, refused as soon as it is too much.

    Args:
        path: For the message.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = self._rows = self._values = 0

    @property
    def room(self) -> int:
        """Bytes that may still follow."""
        return MAX_BYTES - self._size

    def add(self, size: int = 0, rows: int = 0, values: int = 0) -> None:
        """Counts what was met.

        Raises:
            DataError: It is too much.
        """
        self._size += size
        self._rows += rows
        self._values += values
        for number, limit, what in (
            (self._size, MAX_BYTES, "bytes of data"),
            (self._rows, MAX_ROWS, "rows"),
            (self._values, MAX_VALUES, "values"),
        ):
            if number > limit:
                raise errors.DataError(
                    f"{self._path} holds more than {limit:,} {what}",
                    "split it into several files with fewer rows, and read each of them",
                )


def is_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested in more than so many levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return not levels or any(is_deep(one, levels - 1) for one in value)
