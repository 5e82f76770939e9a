"""``jaxlens run --distributed ray``: the process that the user starts, and its driver below it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jaxlens
from jaxlens import errors, interrupts
from jaxlens.config import MeshConfig, RunConfig
from jaxlens.files import scratch
from jaxlens.sweep import preemption, resolve, run, spec
from jaxlens.sweep.distributed import actor, ray_cluster, reaper, wire
from jaxlens.sweep.progress import Progress

LOG = "driver.log"
END_SECONDS = 20.0
"""Time for the driver to end Ray, after which it is killed."""

_LOOK_SECONDS = 0.2

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True)
class RayEngine:
    """Sweeps with workers on a Ray cluster, which share the run's folder and pull their work.

    Attributes:
        workers: How many; None for one on each accelerator, or one on each host without any.
        address: ``HOST:PORT`` of a cluster that runs; None to start one on this host, which ends
            with the run. No other cluster is ever joined.
    """

    workers: int | None = None
    address: str | None = None

    def run(
        self, config: RunConfig, progress: Progress | None, stop: preemption.StopRequest
    ) -> run.Result:
        """Sweeps a corpus, see ``run.run``.

        Raises:
            MissingError: Ray is not installed, or no cluster is at the address.
            JaxlensError: See ``errors``; whatever was committed stays.
        """
        self._check(config)
        with stop.deferred(), scratch.folder() as folder:
            order = {
                "address": self.address,
                "workers": self.workers,
                "temporary": str(folder),
                "settings": wire.settings(_with_recorded_mesh(config)),
                "folder": os.getcwd(),
            }
            with _Driver(order, folder, is_private=self.address is None) as driver:
                for event in driver.events(stop):
                    if (result := _take(event, progress)) is not None:
                        return result
            raise driver.ended()

    def _check(self, config: RunConfig) -> None:
        if self.workers is not None and self.workers < 1:
            raise errors.ConfigError(f"workers is {self.workers}", "give at least 1, or auto")
        if config.shard is not None:
            raise errors.ConfigError(
                f"--shard {config.shard} with --distributed", "leave one of them out"
            )
        if self.address is not None:
            host, _, port = self.address.rpartition(":")
            if not host or not port.isdecimal() or "/" in host:
                raise errors.ConfigError(
                    f"the address of a Ray cluster is {errors.show(self.address)}",
                    "give HOST:PORT, as ray start --head prints it; its port is usually 6379",
                )


def _with_recorded_mesh(config: RunConfig) -> RunConfig:
    """How many devices share a model, of a run that has begun: workers need as many."""
    recorded = resolve.recorded_mesh(spec.read_existing(config.out) or {})
    if recorded is None or config.mesh.model is not None:
        return config
    return replace(config, mesh=MeshConfig(recorded))


def _take(event: Mapping[str, Any], progress: Progress | None) -> run.Result | None:
    """Acts on an event of the driver; the result, if it is that.

    Raises:
        JaxlensError: It is an error.
    """
    match event["event"]:
        case "log":
            logger.log(event["level"], "%s", event["message"])
        case "begin" if progress is not None:
            progress.begin(event["total"], event["done"])
        case "advance" if progress is not None:
            progress.advance(event["count"])
        case "error":
            raise wire.raised(event["error"])
        case "result":
            return run.Result(**event["result"])
    return None


class _Driver:
    """The process of the driver; a context manager.

    Args:
        order: What it is to do.
        folder: For its log.
        is_private: Whether it starts a cluster of its own.
    """

    def __init__(self, order: Mapping[str, Any], folder: Path, is_private: bool) -> None:
        self._order = order
        self._log = folder / LOG
        self._token = secrets.token_hex(32) if is_private else ""
        self._variables = dict(os.environ) | _variables(self._token)
        self._asked = False
        self._reaper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Driver:
        reader, writer = os.pipe()
        try:
            held = self._start_reaper() if self._token else []
            folder = self._log.parent
            with self._log.open("wb") as log, interrupts.shielded():
                module = "jaxlens.sweep.distributed.ray_driver"
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(writer)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=self._variables,
                    cwd=folder,  # where Ray connects, workers look for modules
                    pass_fds=[writer, *held],
                    start_new_session=True,  # Ctrl-C is for this process to handle
                )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._events = reader
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.write(f"{self._process.pid} {self._token}\n".encode())
            self._reaper.stdin.flush()
        self._send(self._order)
        return self

    def __exit__(self, *_: object) -> None:
        with interrupts.shielded():
            os.close(self._events)
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._reaper is not None:
                reaper.end_all(self._process.pid, self._token)
                self._reaper.communicate()

    def _start_reaper(self) -> list[int]:
        """Starts what ends the cluster after this process and the driver; what both must hold."""
        with interrupts.shielded():
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # what ends the others does not end it
            )
        assert self._reaper.stdin is not None
        return [self._reaper.stdin.fileno()]

    def events(self, stop: preemption.StopRequest) -> Iterator[Mapping[str, Any]]:
        """What the driver tells, until it has ended; passes on a request to stop."""
        rest = b""
        while True:
            if stop.requested and not self._asked:
                self._asked = True
                seconds = max(0.0, stop.seconds_left() - actor.MARGIN_SECONDS / 2)
                self._send({"name": stop.name, "seconds": seconds})
            ready, _, _ = select.select([self._events], [], [], _LOOK_SECONDS)
            if not ready:
                continue
            if not (block := os.read(self._events, 1 << 16)):
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def ended(self) -> errors.JaxlensError:
        """The error of a driver that ended without a word."""
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
        return errors.InterruptedRun(
            f"the Ray driver ended by itself ({how}): {lines[-1][:300]}",
            "run the same command again: what is committed stays",
        )

    def _send(self, order: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended: `events` tells
            assert self._process.stdin is not None
            self._process.stdin.write(wire.dumps(order).encode() + b"\n")
            self._process.stdin.flush()


def _variables(token: str) -> dict[str, str]:
    """Environment of the driver; of its workers too, where it starts them on this host.

    Args:
        token: Secret of a cluster that is started; empty for one that runs.
    """
    package = str(Path(jaxlens.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    shared = {"PYTHONPATH": os.pathsep.join(paths)}
    if not token:
        return shared
    return shared | ray_cluster.PRIVATE | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
