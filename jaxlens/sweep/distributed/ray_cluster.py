"""Ray: a cluster of one's own or one that is named, its nodes, and workers on them."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlens import errors
from jaxlens.sweep.distributed import actor, seats

START_SECONDS = 30.0
"""For which a head that is named may take no connections: it may be starting."""

LOST_SECONDS = 6.0
"""After which a head that takes no connection is given up; Ray itself ends the process later."""

PRIVATE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Processes that miss the head end after so long.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    # No less important than a run without Ray: by default whatever else runs goes first.
    "RAY_worker_niceness": "0",
}
"""Variables of a cluster of one's own."""

_STORE_BYTES = 80 << 20  # the least that Ray takes; no rows pass through it
_MAX_FOLDER = 50  # characters: sockets below it may have 107
_BELOW = "r"
"""Folder of Ray's files in one that only this user may enter: Ray lets everyone write to its own,
where workers look for modules."""


class Cluster:
    """A connection to Ray; a context manager.

    Args:
        address: ``HOST:PORT`` of a cluster; None to start one on this host, which ends with it.
        places: Cores that a cluster which is started must offer, though the host has fewer.
        folder: For the files of a cluster that is started; this user's alone.
    """

    def __init__(self, address: str | None, places: int, folder: str) -> None:
        self._ray = errors.require_package("ray", "ray", "runs with --distributed ray")
        self._given = address
        self._places = places
        self._folder = os.path.join(folder, _BELOW)
        self.address = address or ""

    def __enter__(self) -> Cluster:
        """Connects.

        Raises:
            MissingError: There is no cluster at the address.
            JaxlensError: Ray does not start.
        """
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if self._given is not None:
                _await(self._given)
                self._ray.init(address=self._given, **quiet)
            else:
                self._start(quiet)
        except (Exception, SystemExit) as error:
            raise self._unreachable(error) from error
        self.address = self._ray.get_runtime_context().gcs_address
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._ray.shutdown()

    def _start(self, quiet: Mapping[str, Any]) -> None:
        if len(self._folder) > _MAX_FOLDER:
            raise errors.ConfigError(
                f"{self._folder} is too long a name for the sockets of Ray",
                f"set TMPDIR to a folder of at most {_MAX_FOLDER - 22} characters, such as /tmp",
            )
        self._ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, self._places),
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=self._folder,  # made by Ray
            **quiet,
        )

    def _unreachable(self, error: BaseException) -> errors.JaxlensError:
        if isinstance(error, errors.JaxlensError):
            return error
        why = str(error).strip().split("\n")[0] or type(error).__name__
        if self._given is None:
            return errors.JaxlensError(
                f"Ray does not start on this host: {why}",
                "try ray start --head by itself, or run without --distributed",
            )
        return unreachable(self._given, why)

    def watch_head(self) -> errors.InterruptedRun:
        """Returns once the head takes no connections any more; calls to Ray may never return then.

        For a thread of its own: Ray ends the process some time later.
        """
        seen = time.monotonic()
        while time.monotonic() - seen < LOST_SECONDS:
            with contextlib.suppress(OSError):
                _knock(self.address)
                seen = time.monotonic()
            time.sleep(1)
        return errors.InterruptedRun(
            f"the head of the Ray cluster at {self.address} is lost",
            "run the same command again: what is committed stays",
        )

    def nodes(self) -> list[seats.Node]:
        """Nodes that are alive.

        Raises:
            InterruptedRun: A cluster of one's own has lost its node, and can get no other.
        """
        alive = [
            seats.Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"])
            for node in self._ray.nodes()
            if node["Alive"]
        ]
        if not alive and self._given is None:
            raise errors.InterruptedRun(
                "the node of the Ray cluster is lost",
                "run the same command again: what is committed stays",
            )
        return alive

    def hire(self, seat: seats.Seat, settings: Mapping[str, Any], folder: str) -> Any:
        """Starts a worker on a seat; it is there when it answers."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        needs = dict(seat.needs)
        options: dict[str, Any] = {
            "num_cpus": needs.pop("CPU", 0),
            "num_gpus": needs.pop("GPU", 0),
            "resources": needs,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 2,  # so that it hears of a stop while it works
            "scheduling_strategy": strategy(seat.node, soft=False),
        }
        made = self._ray.remote(actor.Actor).options(**options)
        return made.remote(settings, folder, seat.share)

    def fire(self, worker: Any) -> None:
        """Ends a worker, whatever it does."""
        with contextlib.suppress(Exception):
            self._ray.kill(worker)

    def answered(self, questions: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the questions that are answered, waiting for the first if need be."""
        if not questions:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(questions), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(questions), num_returns=len(questions), timeout=0)
        return ready

    def answer(self, question: Any) -> dict[str, Any] | Loss:
        """The answer, or how the worker was lost.

        Raises:
            ConfigError: The worker cannot load this package.
        """
        try:
            return self._ray.get(question)
        except self._ray.exceptions.RayTaskError as error:
            return Loss(_first_line(error), False)
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False) or _cannot_load(error):
                raise errors.ConfigError(
                    f"a worker cannot load jaxlens: {_last_line(error)}",
                    "install the same version of jaxlens on every node of the cluster",
                ) from error
            return Loss(_reason(error), bool(getattr(error, "preempted", False)))


def unreachable(address: str, why: str) -> errors.MissingError:
    """Nothing that is Ray answers at an address."""
    return errors.MissingError(
        f"no Ray cluster answers at {address}: {why}",
        "give the address that ray start --head has printed, and use the versions of Ray and "
        "Python that the cluster has",
    )


def _knock(address: str) -> None:
    """Connects to an address and hangs up.

    Raises:
        OSError: Nothing listens there.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()


def _await(address: str) -> None:
    """Returns once something listens at an address.

    Raises:
        OSError: Nothing does after `START_SECONDS`.
    """
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return _knock(address)
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


class Loss:
    """How a worker was lost.

    Args:
        reason: In a few words.
        was_preempted: Whether its machine was taken away.
    """

    def __init__(self, reason: str, was_preempted: bool) -> None:
        self.reason = reason
        self.was_preempted = was_preempted


def _cannot_load(error: BaseException) -> bool:
    return "ModuleNotFoundError" in str(error) or "Failed to unpickle" in str(error)


def _reason(error: BaseException) -> str:
    """Ray's reason, of which only the beginning is about the case."""
    text = " ".join(str(error).split())
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in text:
        return "its node ran out of memory"
    for says, means in (
        ("node is dead", "its node is gone"),
        ("node died", "its node is gone"),
        ("unavailable", "its node does not answer"),
        ("Worker unexpectedly exits", "its process ended unexpectedly"),
        ("worker process has died", "its process ended unexpectedly"),
    ):
        if says in text:
            return means
    return text[:120]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def _last_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[-1][:200]
