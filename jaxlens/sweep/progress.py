"""What a sweep tells of its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress updates of a sweep."""

    def begin(self, total: int, done: int) -> None:
        """The sweep starts with ``done`` of its ``total`` tokens recorded."""

    def advance(self, count: int) -> None:
        """``count`` more tokens are recorded."""
