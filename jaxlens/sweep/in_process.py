"""The executor of one process: compile, check, compute and publish shards, record how."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxlens.corpus import token_file
from jaxlens.files import publish
from jaxlens.store import layout, records, writer
from jaxlens.store.hdf5.buffers import Buffer
from jaxlens.store.segment_builder import SegmentBuilder
from jaxlens.sweep import compute, environment, preemption, prepare, progress, reproduce
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker, compile_workers

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True, eq=False)
class Ready:
    """A process that may add shards to a run: it has compiled the step and passed the checks.

    Attributes:
        job: Sweep.
        tokens: Its token file.
        workers: Devices with the compiled step.
        here: See ``environment.describe``.
        measured: What the checks found; JSON values.
    """

    job: Job
    tokens: token_file.TokenFile
    workers: Sequence[Worker]
    here: Mapping[str, Any]
    measured: Mapping[str, Any]

    def publish(
        self, numbers: Iterable[int], count: progress.Count, stop: preemption.StopRequest
    ) -> float:
        """Publishes shards, see `publish_all`, and records how fast that went."""
        rate = publish_all(self.job, self.tokens, numbers, self.workers, count, stop)
        self.note({"shards": count.shards, "tokens_per_second": rate})
        return rate

    def note(self, more: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        """Records what must not decide the result (versions, devices, paths, times) and the spec.

        Args:
            more: What was measured since the checks; JSON values.
        """
        document = {
            "environment": self.here,
            "measured": {**self.measured, **more},
            "settings": dataclasses.asdict(self.job.config) | self._place(),
            "spec": self.job.spec,
        }
        path = layout.environment_path(self.job.out, environment.worker_name())
        publish.publish(path, records.encode_note(document), self.job.storage.disk)

    def _place(self) -> dict[str, str]:
        """The setting ``out`` of a run in an object store: its URL, not that of the mirror."""
        return {} if self.job.mirror is None else {"out": self.job.mirror.name}


def get_ready(job: Job, tokens: token_file.TokenFile) -> Ready:
    """Compiles the step and checks this process, before it may add a shard.

    The lens must reproduce the model (the identity gate), and this environment a shard that another
    has committed.

    Args:
        job: Sweep.
        tokens: Its token file.

    Raises:
        NumericalError: One of the two is not reproduced; nothing was written.
        ConfigError: There are fewer devices than were asked for, or a step does not fit them.
    """
    here = environment.describe()
    measured: dict[str, Any] = {"identity_gate_nat": prepare.check_identity(job, tokens)}
    logger.info("compiling the step")
    workers = compile_workers(job)
    measured["devices"] = sum(len(worker.group.devices) for worker in workers)
    if (shard := reproduce.shard_to_reproduce(job, here)) is not None:
        # The recorded name of the reproduction check, since the first version.
        measured["canary"] = reproduce.check_reproduces(job, tokens, workers, shard)
    ready = Ready(job, tokens, workers, here, measured)
    ready.note()
    reproduce.remember(job, here)
    return ready


def execute(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    count: progress.Count,
    stop: preemption.StopRequest,
) -> float:
    """Computes and publishes shards on the devices of this process; see ``executors.Executor``."""
    return get_ready(job, tokens).publish(numbers, count, stop)


def publish_all(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    workers: Sequence[Worker],
    count: progress.Count,
    stop: preemption.StopRequest,
) -> float:
    """Computes shards, and publishes each while the next is computed.

    Args:
        job: Sweep.
        tokens: Its token file.
        numbers: Shards. The next one is taken while the steps of the last are under way.
        workers: Of `workers.compile_workers`.
        count: Hears of every commit, from the thread that publishes.
        stop: Checked before every step.

    Returns:
        Tokens a second, from the first step to the last durable byte.

    Raises:
        StorageError: The disk is full or failed.
    """
    buffer = Buffer()
    before, began = count.tokens, time.perf_counter()
    with SegmentBuilder(job.out, job.stored_spec, job.storage.disk) as segments:

        def committed(shard: int) -> None:
            count.committed(shard)
            segments.committed(shard)

        with stop.deferred(), writer.Writer() as publisher:
            for shard in compute.shards(job, tokens, numbers, workers, stop, count.computed):
                publisher.submit(functools.partial(_publish, job, shard, buffer, committed))
        if stop.requested:
            segments.cancel()
    return (count.tokens - before) / (time.perf_counter() - began)


def _publish(
    job: Job, shard: compute.Shard, buffer: Buffer, committed: Callable[[int], None]
) -> None:
    """Builds a shard's image and commits it; runs in the writer's thread, one at a time."""
    data, rows = compute.build(job, shard, buffer)
    range_ = compute.shard_range(job, shard.number)
    if job.storage.publish_shard(range_, data, rows) is not None:
        logger.warning(
            "shard %d was committed meanwhile, with other bits; that one stands", shard.number
        )
    committed(shard.number)
