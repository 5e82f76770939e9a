"""Adding the steps of a pass: workers take turns, checkpoints are written, stops are obeyed."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxlens import interrupts
from jaxlens.sweep.probe import data
from jaxlens.sweep.probe.work import Work, Worker
from jaxlens.tally import update

T = TypeVar("T")


class Side(NamedTuple):
    """Steps of training or of held-out documents."""

    steps: Sequence[int]
    held_out: bool


class _State(NamedTuple):
    """Totals of each worker, and the steps that they hold."""

    totals: tuple[Any, ...]
    steps: int


def add_steps(
    work: Work,
    side: Side,
    done: int,
    totals: T,
    add: Callable[[T, jax.Array, data.Rows, Worker], T],
    save: Callable[[T, int], None],
) -> T:
    """Adds steps from the last checkpoint on, and ends with a checkpoint.

    Args:
        work: Of the probe.
        side: All steps.
        done: Steps that the totals hold.
        totals: On the host.
        add: Adds the rows of a step on a worker's device, and may use the buffers of its totals
            again.
        save: Writes a checkpoint of totals on the host.

    Returns:
        The totals on the host.

    Raises:
        InterruptedRun: A stop was requested; what was added is in the checkpoint.
    """
    state = _State(_placed(work, totals), done)

    def write() -> T:
        began = time.monotonic()
        host = _merged(state.totals)
        save(host, state.steps)
        work.interval.written(began)
        return host

    with work.stop.deferred():
        try:
            under_way: collections.deque[jax.Array] = collections.deque()
            for number in side.steps[done:]:
                if work.stop.requested:
                    break
                turn = state.steps % len(work.workers)
                worker = work.workers[turn]
                batch, rows = work.corpus.rows(number, side.held_out)
                streams = work.streams(batch, worker)
                under_way.append(streams)
                # So that each worker has a step to go on with, and memory holds no more.
                if len(under_way) > 2 * len(work.workers) - 1:
                    jax.block_until_ready(under_way.popleft())
                with interrupts.shielded():  # totals that were given away are replaced
                    changed = add(state.totals[turn], streams, rows, worker)
                    others = state.totals[:turn], state.totals[turn + 1 :]
                    state = _State((*others[0], changed, *others[1]), state.steps + 1)
                work.advance(len(rows.slot))
                if work.interval.is_due():
                    write()
        except KeyboardInterrupt:
            with contextlib.suppress(RuntimeError):  # totals that were given away
                write()
            raise
        host = write()
    if work.stop.requested and state.steps < len(side.steps):
        raise work.stop.interruption()
    return host


def _placed(work: Work, totals: T) -> tuple[T, ...]:
    """Totals on the device of each worker; the first goes on with those that there are."""
    empty = jax.tree.map(np.zeros_like, totals)
    with update.wide():
        return tuple(
            jax.device_put(empty if turn else totals, worker.device)
            for turn, worker in enumerate(work.workers)
        )


def _merged(totals: tuple[T, ...]) -> T:
    """The sum of the workers' totals, on the host."""
    first, *rest = jax.device_get(totals)
    for other in rest:
        first = jax.tree.map(np.add, first, other)
    return first
