"""A thread that publishes while the accelerator computes."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Self


class Writer:
    """Runs jobs one after the other in its own thread.

    At most ``depth`` jobs wait; `submit` blocks beyond, so images never pile up in RAM. The first
    job that fails ends the thread: jobs that wait are dropped, and the error is raised in the
    caller by the next `submit`, or by `close`. As a context manager it finishes what was
    submitted even when the block fails, because those shards are sound.

    Args:
        depth: Jobs that may wait.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._jobs: collections.deque[Callable[[], object]] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._was_raised = False
        # A daemon, so that a caller that dies unclosed is not held; publishing is atomic anyway.
        self._thread = threading.Thread(target=self._work, name="jaxlens-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], object]) -> None:
        """Queues a job, waiting for room.

        Raises:
            RuntimeError: The writer is closed.
            BaseException: Whatever an earlier job raised; this one will not run.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the writer is closed")
            self._changed.wait_for(lambda: self._error or len(self._jobs) < self._depth)
            self._raise()
            self._jobs.append(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for every job; a second call does nothing.

        Raises:
            BaseException: Whatever a job raised, unless `submit` has raised it already.
        """
        self._finish()
        if not self._was_raised:
            self._raise()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        self._finish()
        if self._error is not None and not self._was_raised:
            error.add_note(f"the writer failed too: {self._error}")

    def _finish(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            self._was_raised = True
            raise self._error

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._jobs.clear()
                    self._changed.notify_all()
                return
            del job  # it holds an image, which must not live until the next one comes

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            job = self._jobs.popleft()
            self._changed.notify_all()
            return job
