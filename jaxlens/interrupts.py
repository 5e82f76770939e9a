"""Signals that end a command, as exceptions that no callback can swallow.

Python raises in whatever code is running when a signal arrives. In a callback of the garbage
collector, of a library or of a finalizer, the interpreter drops such an exception and goes on. So a
signal is remembered here, and raised again and again until the command has ended.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxlens import errors

ASKING = ("SIGTERM", "SIGUSR1", "SIGHUP")
"""Signals by which schedulers and terminals ask a process to end."""

_ALL = ("SIGINT", *ASKING)

AGAIN_SECONDS = 0.2
"""After which a signal is raised again, should it not have ended the command."""

_INSISTS = 3
"""So many signals from outside end a command that has not finished cleaning up."""


class Signalled(KeyboardInterrupt):
    """A signal asked the command to end.

    Ctrl-C has no plain ``KeyboardInterrupt`` here: where one has passed through ``exec`` of a text,
    as in the making of a dataclass, Python ends with SIGINT whatever the status.

    Args:
        name: Of the signal.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def is_unwinding(*kinds: type[BaseException]) -> bool:
    """Whether the code that a signal has interrupted is already ending because of one.

    Args:
        kinds: Exceptions that signals raise.
    """
    error = sys.exception()
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__context__
    return False


class Watch:
    """The signals of a command, from its first to its last line.

    Attributes:
        error: What the first signal raised; None without any.
    """

    def __init__(self) -> None:
        self.error: Signalled | None = None
        self._ended = False
        self._count = 0
        self._is_echo = False
        self._shields = 0
        self._lock = threading.Lock()

    def take(self, number: int, frame: object) -> None:
        """Handles a signal.

        Raises:
            Signalled: Unless the command has ended or is ending.
        """
        echo, self._is_echo = self._is_echo, False
        if self._ended:
            return
        self._count += not echo
        if self.error is None:
            first = signal.Signals(number)
            self.error = Signalled(first.name)
            with contextlib.suppress(RuntimeError):  # no memory for a thread
                _thread.start_new_thread(self._repeat, (first,))
        elif is_unwinding(KeyboardInterrupt) and (echo or self._count < _INSISTS):
            return
        if not self._shields:
            raise self.error

    def _repeat(self, number: signal.Signals) -> None:
        """Makes the handler run in the main thread until the command has ended."""
        while True:
            time.sleep(AGAIN_SECONDS)
            with self._lock:
                if self._ended:
                    return
                self._is_echo = True
                _thread.interrupt_main(number)

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Signals in the block are raised at its end."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self.error is not None and not self._shields and not is_unwinding(KeyboardInterrupt):
            raise self.error

    def end(self) -> None:
        """The command has ended: nothing is raised any more."""
        with self._lock:
            self._ended = True


_watch: Watch | None = None


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Signals in the block raise `Signalled`, and are never lost.

    A signal that the process was started to ignore, as ``nohup`` does with SIGHUP, stays ignored.
    Handlers are put back in the end. Signals reach the main thread alone; elsewhere this does
    nothing. A block within another one shares its watch.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield _watch or Watch()
        return
    made = Watch()
    numbers = [getattr(signal, name) for name in _ALL if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    hooks = sys.unraisablehook, sys.excepthook

    # What a signal raises is raised again; nobody needs to read of it twice. Extensions written in
    # C, such as NumPy's, print what interrupts their imports by the second hook.
    def unraisable(raised: Any) -> None:
        if not isinstance(raised.exc_value, (Signalled, errors.InterruptedRun)):
            hooks[0](raised)

    def printed(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, Signalled):
            hooks[1](kind, error, trace)

    before = {number: signal.signal(number, made.take) for number in numbers}
    _watch, sys.unraisablehook, sys.excepthook = made, unraisable, printed
    try:
        yield made
    finally:
        made.end()
        _watch, (sys.unraisablehook, sys.excepthook) = None, hooks
        for number, handler in before.items():
            signal.signal(number, handler)


def shielded() -> contextlib.AbstractContextManager[None]:
    """Signals in the block are raised at its end: for a clean-up that must not stop half-way."""
    if _watch is None or threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return _watch.shielded()


def ignore_late() -> None:
    """Ignores signals from now on: the command has ended, and its status is known."""
    for name in _ALL:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
