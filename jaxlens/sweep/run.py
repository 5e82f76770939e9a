"""The sweep: compute and publish the shards that a run lacks, and record how it was done."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxlens import errors, settings
from jaxlens.config import RunConfig
from jaxlens.corpus import ingest, token_file
from jaxlens.files import publish, scratch
from jaxlens.lens import numerics
from jaxlens.store import commit, finalize, layout, records, shards, writer
from jaxlens.store.hdf5.buffer import Buffer
from jaxlens.sweep import environment, executor, preemption, prepare, reproduce
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker, compile_workers

logger = logging.getLogger("jaxlens")


class Progress(Protocol):
    """Receives progress updates of a sweep."""

    def begin(self, total: int, done: int) -> None:
        """The sweep starts with ``done`` of its ``total`` tokens recorded."""

    def advance(self, count: int) -> None:
        """``count`` more tokens are recorded."""


@dataclass(frozen=True)
class Result:
    """What a sweep did.

    Attributes:
        out: Run directory.
        spec_hash: Its name.
        n_tokens: Tokens of the corpus, each recorded once.
        n_shards: Shards of the plan.
        computed: Shards that this call computed.
        tokens_per_second: Recorded tokens a second of the sweep itself; None if none were.
        finished: Whether all shards are there and the derived files built.
        skipped: Documents that were skipped, by reason.
        fill: Share of the computed positions that held a token.
    """

    out: str
    spec_hash: str
    n_tokens: int
    n_shards: int
    computed: int
    tokens_per_second: float | None
    finished: bool
    skipped: dict[str, int]
    fill: float


@numerics.nan_is_missing()
def run(
    config: RunConfig,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
) -> Result:
    """Sweeps a corpus into a run directory; the same call resumes.

    Args:
        config: From ``config.load``.
        progress: Receives updates.
        stop: Checked before every step.

    Raises:
        ConfigError: ``config`` is something else.
        InterruptedRun: A stop was requested.
        JaxlensError: See ``errors``; whatever was committed stays.
    """
    if not isinstance(config, RunConfig):
        raise errors.ConfigError(
            f"the configuration is a {type(config).__name__}",
            "give jaxlens.config.load([files], os.environ, {'corpus.paths': [...]})",
        )
    with scratch.folder() as temporary:
        job = prepare.prepare(config, temporary)
        layout.create_run(job.out, job.spec_bytes)
        placed = ingest.place(job.ingested, job.out / layout.TOKENS)
    with placed.open() as tokens:
        return _run(job, tokens, progress, stop or preemption.StopRequest())


def _run(
    job: Job,
    tokens: token_file.TokenFile,
    progress: Progress | None,
    stop: preemption.StopRequest,
) -> Result:
    missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash)
    index, total = settings.shard_of(job.config.shard)
    mine = [shard for shard in missing if shard % total == index]
    rate = None
    if mine:
        if progress is not None:
            progress.begin(*_extent(job, mine, range(index, job.plan.n_shards, total)))
        rate = complete(job, tokens, mine, progress, stop)
    finished = not shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
    if finished:
        finalize.finalize(job.out)
    elif stop.requested:
        raise stop.interruption()
    return Result(
        out=str(job.out),
        spec_hash=job.spec_hash,
        n_tokens=job.plan.n_tokens,
        n_shards=job.plan.n_shards,
        computed=len(mine),
        tokens_per_second=rate,
        finished=finished,
        skipped=job.ingested.skipped,
        fill=job.plan.fill,
    )


def complete(
    job: Job,
    tokens: token_file.TokenFile,
    numbers: Sequence[int],
    progress: Progress | None,
    stop: preemption.StopRequest,
) -> float:
    """Computes and publishes shards of a run that has begun.

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
    measured["devices"] = len(workers)
    if (shard := reproduce.shard_to_reproduce(job, here)) is not None:
        # The key that runs of earlier versions have, too.
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
        for shard in executor.shards(job, tokens, numbers, workers, stop, advance):
            publisher.submit(functools.partial(_publish, job, shard, buffer))
    return recorded / (time.perf_counter() - began)


def _extent(job: Job, missing: Iterable[int], all_mine: Iterable[int]) -> tuple[int, int]:
    """Tokens of this worker's shards, and how many of them are recorded already."""

    def tokens(shards: Iterable[int]) -> int:
        return sum(stop - start for start, stop in map(job.plan.tokens_of_shard, shards))

    total = tokens(all_mine)
    return total, total - tokens(missing)


def _publish(job: Job, shard: executor.Shard, buffer: Buffer) -> None:
    """Builds a shard's image and commits it; runs in the writer's thread, one at a time."""
    data, rows = executor.build(job, shard, buffer)
    place = executor.shard_range(job, shard.number)
    if commit.publish_shard(job.out, place, data, rows) is not None:
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
