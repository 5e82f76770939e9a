"""A worker as its driver sees it, and what the driver tells of the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlens import errors
from jaxlens.sweep.distributed import seats


@dataclass(eq=False)
class Worker:
    """A worker that was hired.

    Attributes:
        name: No other has or had it.
        seat: Where it sits.
        actor: Its handle.
        doing: Name of the method that it was asked for last.
        question: What its answer will be found by; None while it has nothing to do.
        place: Host and process, once it has said them.
        is_ready: Whether it has passed its checks.
        gives_back: Whether it was asked for what it has not begun, since its last answer.
    """

    name: str
    seat: seats.Seat
    actor: Any
    doing: str = ""
    question: Any = None
    place: str = ""
    is_ready: bool = False
    gives_back: bool = False

    def ask(self, method: str, *given: Any) -> None:
        """Asks it for something."""
        assert self.question is None, f"{self.name} has not answered yet"
        self.doing, self.gives_back = method, False
        self.question = getattr(self.actor, method).remote(*given)

    def ask_back(self) -> None:
        """Asks it, while it works, for what it has not begun."""
        self.gives_back = True
        self.actor.give_back.remote()


def can_do_without(worker: Worker, members: Iterable[Worker]) -> bool:
    """Whether a run goes on without a worker that reports an error.

    What is wrong when it says hello is wrong with its node; later errors are those of every worker
    unless another is ready.
    """
    if worker.doing == "hello":
        return any(other.seat.node != worker.seat.node for other in members)
    return any(other.is_ready for other in members if other is not worker)


def poisoned(shard: int, n_shards: int, reason: str) -> errors.JaxlensError:
    """What ends a run of which a shard kills workers.

    Args:
        shard: Its number.
        n_shards: Of the run.
        reason: How the last of them was lost.
    """
    return errors.JaxlensError(
        f"shard {shard} has killed several workers while others went on: {reason}",
        "look for lack of memory; to see what happens, compute it alone: the same command with "
        f"--shard {shard}/{n_shards} instead of --distributed",
    )


class Report:
    """What the driver tells.

    Args:
        tell: Receives events: ``begin``, ``advance``, ``log``.
    """

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell
        self._said: set[str] = set()

    def begin(self, total: int, done: int) -> None:
        """As ``Progress.begin``."""
        self._tell({"event": "begin", "total": total, "done": done})

    def advance(self, count: int) -> None:
        """As ``Progress.advance``."""
        self._tell({"event": "advance", "count": count})

    def say(self, level: int, message: str) -> None:
        """A line of the log, unless it was said before."""
        if message not in self._said:
            self._said.add(message)
            self._tell({"event": "log", "level": level, "message": message})

    def repeat(self, lines: Iterable[tuple[int, str]], is_first: bool) -> None:
        """Passes on the log of a worker: all of the first one's, and the others' warnings."""
        for level, message in lines:
            if is_first or level >= logging.WARNING:
                self.say(level, message)
