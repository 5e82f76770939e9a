"""What a sweep tells of its progress: what it has computed, and what is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Receives progress updates of a sweep.

    A receiver that also has a method ``computed(count)`` hears of every step: ``count`` more tokens
    are computed, which are recorded with their shard, or dropped with it.
    """

    def begin(self, total: int, done: int) -> None:
        """The sweep starts with ``done`` of its ``total`` tokens recorded."""

    def advance(self, count: int) -> None:
        """``count`` more tokens are recorded; may be called from another thread."""


class Count:
    """Counts what is committed, and passes it on.

    Args:
        tokens_of: Range of a shard's tokens in the corpus, ``Plan.tokens_of_shard``.
        progress: Receives the updates.

    Attributes:
        shards: Shards that this sweep has committed.
        tokens: Their tokens.
    """

    def __init__(
        self, tokens_of: Callable[[int], tuple[int, int]], progress: Progress | None = None
    ) -> None:
        self.shards = 0
        self.tokens = 0
        self._tokens_of = tokens_of
        self._progress = progress
        self._of_step = getattr(progress, "computed", None)

    def computed(self, count: int) -> None:
        """``count`` more tokens are computed, and not recorded yet."""
        if self._of_step is not None:
            self._of_step(count)

    def committed(self, shard: int) -> None:
        """A shard of this sweep is durable."""
        self.shards += 1
        self.tokens += self._size(shard)
        self.found(shard)

    def found(self, shard: int) -> None:
        """A shard is durable that another process has committed."""
        if self._progress is not None:
            self._progress.advance(self._size(shard))

    def _size(self, shard: int) -> int:
        start, stop = self._tokens_of(shard)
        return stop - start
