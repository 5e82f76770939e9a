"""What a worker of a distributed run does when the driver asks for it.

Nothing here knows what carries the questions and answers, which are JSON. Errors are answers too,
so that the driver can tell what a worker says from the loss of the worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from jaxlens import errors
from jaxlens.sweep.distributed import stream, wire

if TYPE_CHECKING:
    from jaxlens.config import RunConfig
    from jaxlens.corpus import token_file
    from jaxlens.sweep.in_process import Ready
    from jaxlens.sweep.job import Job
    from jaxlens.sweep.preemption import StopRequest

P = ParamSpec("P")

MARGIN_SECONDS = 3.0
"""Of the grace, what the driver keeps to end."""

MIN_LANES = 2
"""Devices of a worker on a CPU, even where its share is one core: one computes while the other
waits for threads, rows or the disk. Two processes on two cores gain 4 to 7 % by it."""

logger = logging.getLogger("jaxlens")


def _answered(
    method: Callable[Concatenate[Actor, P], Any],
) -> Callable[Concatenate[Actor, P], dict[str, Any]]:
    """Makes a method answer with its ``value`` or its ``error``, and the log lines of the call."""

    @functools.wraps(method)
    def answer(self: Actor, *given: P.args, **named: P.kwargs) -> dict[str, Any]:
        with _overheard() as lines:
            try:
                return {"value": method(self, *given, **named), "log": lines}
            except Exception as error:
                return {"error": wire.error(error), "log": lines}

    return answer


class Actor:
    """A worker process.

    Args:
        settings: Of the run, see ``wire.settings``.
        folder: Where the driver was started; relative paths of the settings begin there.
        share: Cores of this host that it may use; 0 for everything that there is.
    """

    def __init__(self, settings: Mapping[str, Any], folder: str, share: int) -> None:
        self._settings = settings
        self._folder = folder
        self._share = share
        self._stop: StopRequest | None = None
        self._job: Job | None = None
        self._tokens: token_file.TokenFile | None = None
        self._ready: Ready | None = None
        self._count: stream.Count | None = None
        self._stream: stream.Stream | None = None

    @_answered
    def hello(self) -> dict[str, Any]:
        """Who this is, before anything is loaded."""
        return {"host": socket.gethostname(), "pid": os.getpid(), "versions": wire.versions()}

    @_answered
    def begin(self, is_first: bool) -> dict[str, Any]:
        """Loads the model and finds or makes tokens and spec.

        Args:
            is_first: Whether to look for what the run lacks, too, with its number of tokens.
        """
        from jaxlens.store import shards
        from jaxlens.sweep import preemption, run

        self._enter_folder()
        config = self._configuration()
        self._stop = preemption.StopRequest(max(0.0, config.grace - MARGIN_SECONDS))
        job, placed = run.begin(config)
        self._job, self._tokens = job, placed.open()
        self._count = stream.Count(job.plan.tokens_of_shard, self._heard)
        missing: list[int] = []
        if is_first:
            missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
        ranges = ((shard, *job.plan.tokens_of_shard(shard)) for shard in missing)
        return {
            "out": str(job.out),
            "spec_hash": job.spec_hash,
            "n_tokens": job.plan.n_tokens,
            "n_shards": job.plan.n_shards,
            "skipped": job.ingested.skipped,
            "fill": job.plan.fill,
            "missing": [(shard, stop - start) for shard, start, stop in ranges],
        }

    @_answered
    def get_ready(self) -> None:
        """Compiles, and passes the checks."""
        from jaxlens.lens import numerics
        from jaxlens.sweep import compute, in_process, shares

        job, stop = self._job, self._stop
        assert job is not None and self._tokens is not None and stop is not None
        with numerics.nan_is_missing():
            self._ready = in_process.get_ready(job, self._tokens)
        is_committed = functools.partial(shares.is_committed, job)
        # One is published while another is computed; more where steps ahead reach into others, of
        # which one may be of a single step.
        steps, ahead = len(job.plan.steps_of(0)), compute.steps_ahead(self._ready.workers)
        most = 1 + math.ceil((ahead + steps - 1) / steps)
        self._stream = stream.Stream(self._publish, is_committed, stop, most)

    @_answered
    def work(self, leased: Sequence[int]) -> dict[str, list[int]]:
        """Publishes shards; answers before the last are done, see ``stream.Stream.feed``."""
        assert self._stream is not None
        return self._stream.feed(leased)

    @_answered
    def finish(self) -> bool:
        """Builds the derived files, unless shards are missing; whether it did."""
        from jaxlens.store import shards
        from jaxlens.sweep import run

        job, stop = self._job, self._stop
        assert job is not None and stop is not None
        if self._stream is not None:
            self._stream.drain()
        if shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast"):
            return False
        run.finish(job, self._recompute, stop)
        return True

    def _recompute(self, damaged: Sequence[int]) -> None:
        """Publishes shards again whose bytes are not what they were."""
        from jaxlens.lens import numerics
        from jaxlens.sweep import in_process

        assert self._job is not None and self._tokens is not None
        if self._ready is None:
            with numerics.nan_is_missing():
                self._ready = in_process.get_ready(self._job, self._tokens)
        self._publish(damaged)

    def _publish(self, numbers: Iterable[int]) -> None:
        from jaxlens.lens import numerics

        assert self._ready is not None and self._count is not None and self._stop is not None
        with numerics.nan_is_missing():
            self._ready.publish(numbers, self._count, self._stop)

    def _heard(self, shard: int) -> None:
        if self._stream is not None:
            self._stream.committed(shard)

    def give_back(self) -> None:
        """Lets `work` answer without the shards that have not begun."""
        if self._stream is not None:
            self._stream.give_back()

    def stop(self, name: str) -> None:
        """Lets `work` end, after the shard in work if the grace allows it.

        Args:
            name: Of the signal that the driver has received.
        """
        if self._stop is not None:
            with contextlib.suppress(errors.InterruptedRun):
                self._stop.request(name)

    def _enter_folder(self) -> None:
        try:
            os.chdir(self._folder)
        except OSError as error:
            host = socket.gethostname()
            raise errors.ConfigError(
                f"{self._folder}, where the run was started, is not there on {host}",
                "start it in a folder that every node of the cluster sees under the same name",
            ) from error

    def _configuration(self) -> RunConfig:
        """The settings, with the cores of this host shared among its workers."""
        import jax

        from jaxlens.sweep import devices

        config = wire.configuration(self._settings)
        if config.devices is None and self._share:
            devices.offer_cores()
            if jax.default_backend() == "cpu":
                count = min(max(self._share, MIN_LANES), len(jax.local_devices()))
                size = config.mesh.model or 1
                config = dataclasses.replace(config, devices=max(count // size, 1) * size)
        return config


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@contextlib.contextmanager
def _overheard() -> Iterator[list[tuple[int, str]]]:
    """Collects what the package logs in the block."""
    handler = _Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
