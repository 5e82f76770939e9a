"""The executor of one process: compile, check, compute and publish shards, record how."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from jaxlens.corpus import token_file
from jaxlens.files import publish
from jaxlens.store import commit, layout, records, writer
from jaxlens.store.hdf5.buffers import Buffer
from jaxlens.sweep import compute, environment, preemption, prepare, reproduce
from jaxlens.sweep.job import Job
from jaxlens.sweep.progress import Progress
from jaxlens.sweep.workers import Worker, compile_workers

logger = logging.getLogger("jaxlens")


def execute(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Sequence[int],
    progress: Progress | None,
    stop: preemption.StopRequest,
) -> float:
    """Computes and publishes shards on the devices of this process.

    Before the first of them the lens must reproduce the model (the identity gate), and this
    environment a shard that another has committed.

    Returns:
        Tokens a second of the sweep itself, compilation left out.

    Raises:
        NumericalError: One of the two is not reproduced; nothing was written.
        StorageError: The disk is full or failed.
    """
    here = environment.describe()
    identity = prepare.check_identity(job, tokens)
    measured: dict[str, Any] = {"identity_gate_nat": identity, "shards": len(numbers)}
    logger.info("compiling the step")
    workers = compile_workers(job)
    measured["devices"] = sum(len(worker.group.devices) for worker in workers)
    if (shard := reproduce.shard_to_reproduce(job, here)) is not None:
        # The recorded name of the reproduction check, since the first version.
        measured["canary"] = reproduce.check_reproduces(job, tokens, workers, shard)
    _note(job, here, measured)
    rate = publish_all(job, tokens, numbers, workers, stop, progress)
    _note(job, here, measured | {"tokens_per_second": rate})
    return rate


def publish_all(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    workers: Sequence[Worker],
    stop: preemption.StopRequest,
    progress: Progress | None = None,
) -> float:
    """Computes shards, and publishes each while the next is computed.

    Returns:
        Tokens a second, from the first step to the last durable byte.

    Raises:
        StorageError: The disk is full or failed.
    """
    recorded = 0

    def advance(count: int) -> None:
        nonlocal recorded
        recorded += count
        if progress is not None:
            progress.advance(count)

    buffer = Buffer()
    began = time.perf_counter()
    with stop.deferred(), writer.Writer() as publisher:
        for shard in compute.shards(job, tokens, numbers, workers, stop, advance):
            publisher.submit(functools.partial(_publish, job, shard, buffer))
    return recorded / (time.perf_counter() - began)


def _publish(job: Job, shard: compute.Shard, buffer: Buffer) -> None:
    """Builds a shard's image and commits it; runs in the writer's thread, one at a time."""
    data, rows = compute.build(job, shard, buffer)
    range_ = compute.shard_range(job, shard.number)
    if commit.publish_shard(job.out, range_, data, rows) is not None:
        logger.warning(
            "shard %d was committed meanwhile, with other bits; that one stands", shard.number
        )


def _note(job: Job, here: dict[str, Any], measured: dict[str, Any]) -> None:
    """Records what must not decide the result (versions, devices, paths, times) and the spec."""
    document = {
        "environment": here,
        "measured": measured,
        "settings": dataclasses.asdict(job.config),
        "spec": job.spec,
    }
    path = layout.environment_path(job.out, environment.worker_name())
    publish.publish(path, records.encode_note(document))
