"""The shards that a worker publishes one after the other, across its leases.

The worker asks for more while it still has some, so that its devices never wait for a lease.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator, Sequence

from jaxlens.sweep import preemption, progress


class Stream:
    """Publishes shards in a thread of its own, as long as there are any.

    Args:
        publish: Publishes shards, and calls `committed` for each; returns early after a stop.
        is_committed: Whether a shard is there already.
        stop: Whether to drop what has not begun.
    """

    def __init__(
        self,
        publish: Callable[[Iterator[int]], object],
        is_committed: Callable[[int], bool],
        stop: preemption.StopRequest,
    ) -> None:
        self._publish = publish
        self._is_committed = is_committed
        self._stop = stop
        self._waiting: collections.deque[int] = collections.deque()
        self._begun: list[int] = []
        self._committed: list[int] = []
        self._changed = threading.Condition()
        self._is_publishing = False
        self._gives_back = False
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="jaxlens-stream", daemon=True).start()

    def feed(self, shards: Sequence[int]) -> dict[str, list[int]]:
        """Adds shards, and returns once few are left that have not begun.

        A quarter of those that were added is few, and so is one. Where none were added, it returns
        once all are committed.

        Args:
            shards: To be published after those that are there.

        Returns:
            Which are ``committed`` since the last call, and which are ``kept``. What was neither
            committed nor kept is given back.

        Raises:
            BaseException: Whatever publishing raised.
        """
        few = max(1, len(shards) // 4) if shards else -1
        with self._changed:
            self._waiting.extend(shards)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._error or self._gives_back or self._is_idle or len(self._waiting) <= few
                )
            )
            if self._error is not None:
                raise self._error
            if self._gives_back:
                self._waiting.clear()
            self._gives_back = False
            committed, self._committed = self._committed, []
            return {"committed": committed, "kept": [*self._begun, *self._waiting]}

    def give_back(self) -> None:
        """Lets `feed` return, and gives back what has not begun, if there is any."""
        with self._changed:
            self._gives_back = bool(self._waiting)
            self._changed.notify_all()

    def committed(self, shard: int) -> None:
        """A shard is there."""
        with self._changed:
            if shard in self._begun:
                self._begun.remove(shard)
                self._committed.append(shard)

    def drain(self) -> None:
        """Returns once nothing is being published."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._is_idle)

    @property
    def _is_idle(self) -> bool:
        return not self._is_publishing and not self._waiting

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._is_publishing = True
            try:
                self._publish(self._next())
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._begun.clear()  # dropped by a stop, else there are none
                if self._stop.requested:
                    self._waiting.clear()
                self._is_publishing = False
                self._changed.notify_all()

    def _next(self) -> Iterator[int]:
        """Shards that are not there yet, each taken shortly before it is computed."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                shard = self._waiting.popleft()
                self._begun.append(shard)
                self._changed.notify_all()
            if self._is_committed(shard):
                self.committed(shard)
            else:
                yield shard


class Count(progress.Count):
    """Counts what is committed, and says which shard it was.

    Args:
        tokens_of: As in ``progress.Count``.
        hear: Receives the shard.
    """

    def __init__(
        self, tokens_of: Callable[[int], tuple[int, int]], hear: Callable[[int], None]
    ) -> None:
        super().__init__(tokens_of)
        self._hear = hear

    def committed(self, shard: int) -> None:
        """A shard of this worker is durable."""
        super().committed(shard)
        self._hear(shard)
