"""Stopping when a scheduler says so: the shard in work is finished if that fits, else dropped."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from jaxlens import errors, interrupts


class Grace:
    """Whether a sweep was asked to stop, and how much time it has left then.

    Args:
        seconds: From being asked to being gone.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._asked_by = ""
        self._patient = False
        self._ends = float("inf")

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return bool(self._asked_by)

    def ask(self, name: str) -> None:
        """Asks to stop; only the first time counts.

        Raises:
            InterruptedRun: Nothing is in work that is worth finishing, or there is no time for it.
        """
        again = self.asked
        if not again:
            self._asked_by, self._ends = name, time.monotonic() + self._seconds
        if again or not self._patient or not self.allows(0.0):
            raise self.interruption()

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """While the block runs, being asked does not interrupt: the block asks back."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def allows(self, seconds: float) -> bool:
        """Whether work of so many seconds may still be begun."""
        return seconds < self.left()

    def left(self) -> float:
        """Seconds that are left once asked."""
        return self._ends - time.monotonic()

    def interruption(self) -> errors.InterruptedRun:
        """What ends the run."""
        return errors.InterruptedRun(
            f"interrupted by {self._asked_by}", "run the same command to resume"
        )


@contextlib.contextmanager
def on_signals(grace: Grace) -> Iterator[Grace]:
    """Asks for a stop at SIGTERM and SIGUSR1, as schedulers send them, and at SIGHUP.

    A signal that the process was started to ignore, as ``nohup`` does with SIGHUP, stays ignored.

    Work that does not stop by itself within its grace is interrupted then, or by a second signal.
    Signals reach the main thread alone; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield grace
        return

    def ask(number: int, frame: object) -> None:
        if interrupts.is_unwinding(errors.InterruptedRun, KeyboardInterrupt):
            return
        # Also in a callback, where what is raised below is lost.
        signal.setitimer(signal.ITIMER_REAL, interrupts.AGAIN_SECONDS, interrupts.AGAIN_SECONDS)
        grace.ask(signal.Signals(number).name)
        signal.setitimer(signal.ITIMER_REAL, max(grace.left(), 1e-3), interrupts.AGAIN_SECONDS)

    def over(number: int, frame: object) -> None:
        if not interrupts.is_unwinding(errors.InterruptedRun, KeyboardInterrupt):
            raise grace.interruption()

    numbers = [getattr(signal, name) for name in interrupts.ASKING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, over)
    try:
        yield grace
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
