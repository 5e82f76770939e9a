"""The process of a driver that uses Ray: ``python -m jaxlens.sweep.distributed.ray_driver FD``.

A process of its own, because Ray takes over handlers of signals, prints to every stream, and ends
the process where it loses its cluster. Orders come on standard input, events go to a descriptor,
one line of JSON each.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from jaxlens import errors
from jaxlens.sweep.distributed import driver, hired, ray_cluster, wire

ORPHANED_SECONDS = 10.0
"""Time to end in order after the parent has gone."""

CONNECT_SECONDS = 60.0
"""In which a cluster that is named must answer, that in which its head may start included."""

_LOOK_SECONDS = 0.2


def main() -> None:
    """Runs the order on the first line of standard input."""
    events, turn = os.fdopen(int(sys.argv[1]), "w", buffering=1), threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        with turn:
            events.write(wire.dumps(event) + "\n")

    order = json.loads(sys.stdin.readline())
    asked: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    connected = threading.Event()
    given = (order["address"], connected, asked, tell)
    threading.Thread(target=_limit_connection, args=given, daemon=True).start()
    try:
        places = (order["workers"] or 0) * (order["settings"]["mesh.model"] or 1)
        with ray_cluster.Cluster(order["address"], places, order["temporary"]) as cluster:
            connected.set()
            os.chdir(order["folder"])  # relative paths of the settings begin there
            threading.Thread(target=_watch, args=(cluster, tell), daemon=True).start()
            _drive(driver.Driver(cluster, *_given(order), hired.Report(tell)), asked, tell)
    except BaseException as error:
        tell({"event": "error", "error": wire.error(error)})


def _watch(cluster: ray_cluster.Cluster, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Ends this process where the cluster has lost its head; Ray would wait for it."""
    lost = cluster.watch_head()
    tell({"event": "error", "error": wire.error(lost)})
    os._exit(0)


def _limit_connection(
    address: str | None,
    connected: threading.Event,
    asked: queue.SimpleQueue[Mapping[str, Any] | None],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Ends this process where it is asked to stop, or out of time, before it is connected.

    Ray itself tries for minutes, whatever listens at the address.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while not connected.wait(_LOOK_SECONDS):
        error: errors.JaxlensError | None = None
        with contextlib.suppress(queue.Empty):
            if (stop := asked.get_nowait()) is None:
                os._exit(1)
            error = _interrupted(stop["name"])
        if address is not None and time.monotonic() > deadline:
            error = ray_cluster.unreachable(address, "what listens there does not answer as one")
        if error is not None:
            tell({"event": "error", "error": wire.error(error)})
            os._exit(0)


def _interrupted(name: str) -> errors.InterruptedRun:
    return errors.InterruptedRun(f"interrupted by {name}", "run the same command to resume")


def _given(order: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, int | None]:
    return order["settings"], order["folder"], order["workers"]


def _drive(
    run: driver.Driver,
    asked: queue.SimpleQueue[Mapping[str, Any] | None],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Drives a run to its end, or until it is asked to stop."""
    while (result := run.step()) is None:
        while not asked.empty():
            if (stop := asked.get()) is None:
                return
            _stop(run, stop["name"], stop["seconds"])
    tell({"event": "result", "result": result})


def _stop(run: driver.Driver, name: str, seconds: float) -> None:
    """Ends a run within its grace.

    Raises:
        InterruptedRun: Always.
    """
    deadline = time.monotonic() + seconds
    run.stop(name)
    while time.monotonic() < deadline and not run.settle():
        pass
    raise _interrupted(name)


def _listen(asked: queue.SimpleQueue[Mapping[str, Any] | None]) -> None:
    """Takes further orders; where there are no more, the parent has gone."""
    for line in sys.stdin:
        asked.put(json.loads(line))
    asked.put(None)
    time.sleep(ORPHANED_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
