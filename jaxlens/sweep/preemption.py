"""Stopping on request: the shard being computed is finished if time allows, else dropped."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from jaxlens import errors, interrupts


class StopRequest:
    """Whether a scheduler has asked the sweep to stop, and how much time it has left then.

    Args:
        seconds: From the request to the end of the process.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._requested_by = ""
        self._is_deferred = False
        self._deadline = float("inf")

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return bool(self._requested_by)

    @property
    def name(self) -> str:
        """Name of the signal; empty before a request."""
        return self._requested_by

    def request(self, name: str) -> None:
        """Requests a stop; only the first request sets the deadline.

        Args:
            name: Of the signal.

        Raises:
            InterruptedRun: No block of `deferred` is running, or there is no time left for it.
        """
        again = self.requested
        if not again:
            self._requested_by, self._deadline = name, time.monotonic() + self._seconds
        if again or not self._is_deferred or not self.has_time_for(0.0):
            raise self.interruption()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While the block runs, a request does not interrupt it: the block checks `requested`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def has_time_for(self, seconds: float) -> bool:
        """Whether work of that many seconds may still begin."""
        return seconds < self.seconds_left()

    def seconds_left(self) -> float:
        """Seconds until the deadline; infinite before a request."""
        return self._deadline - time.monotonic()

    def interruption(self) -> errors.InterruptedRun:
        """The exception that ends the run."""
        return errors.InterruptedRun(
            f"interrupted by {self._requested_by}", "run the same command to resume"
        )


@contextlib.contextmanager
def on_signals(stop: StopRequest) -> Iterator[StopRequest]:
    """Requests a stop at SIGTERM and SIGUSR1, as schedulers send them, and at SIGHUP.

    A signal that the process was started to ignore, as ``nohup`` does with SIGHUP, stays ignored.

    Work that does not stop by itself within its grace is interrupted then, or by a second signal.
    Signals reach the main thread alone; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if interrupts.is_unwinding(errors.InterruptedRun, KeyboardInterrupt):
            return
        # Also in a callback, where what is raised below is lost.
        signal.setitimer(signal.ITIMER_REAL, interrupts.AGAIN_SECONDS, interrupts.AGAIN_SECONDS)
        stop.request(signal.Signals(number).name)
        signal.setitimer(
            signal.ITIMER_REAL, max(stop.seconds_left(), 1e-3), interrupts.AGAIN_SECONDS
        )

    def expire(number: int, frame: object) -> None:
        if not interrupts.is_unwinding(errors.InterruptedRun, KeyboardInterrupt):
            raise stop.interruption()

    numbers = [getattr(signal, name) for name in interrupts.ASKING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in numbers}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, expire)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
