"""The sweep: find the shards that a run lacks, have them computed, build the derived files."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxlens import arguments, errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_file, token_folder
from jaxlens.files import scratch
from jaxlens.lens import numerics
from jaxlens.store import finalize, layout, run_directory, shards, storage
from jaxlens.sweep import (
    executors,
    preemption,
    prepare,
    ranks,
    shares,
    token_counts,
    type_means,
)
from jaxlens.sweep.job import Job
from jaxlens.sweep.progress import Count, Progress

logger = logging.getLogger("jaxlens")


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


class Engine(Protocol):
    """Sweeps with more than this process."""

    def run(
        self, config: RunConfig, progress: Progress | None, stop: preemption.StopRequest
    ) -> Result:
        """Does what `run` does."""


@numerics.nan_is_missing()
def run(
    config: RunConfig,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
    executor: str = "process",
    engine: Engine | None = None,
) -> Result:
    """Sweeps a corpus into a run directory; the same call resumes.

    Args:
        config: From ``config.load``.
        progress: Receives updates.
        stop: Checked before every step.
        executor: One of ``executors.EXECUTORS``, which computes the shards in this process.
        engine: Distributes the run instead, for instance ``jaxlens.RayEngine(workers=4)``.

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
    arguments.one_of(executor, "executor", executors.EXECUTORS)
    execute, stop = executors.EXECUTORS[executor], stop or preemption.StopRequest()
    if engine is not None:
        storage.refuse_url(config.out, "--distributed", "start workers with --shard auto")
        return engine.run(config, progress, stop)
    rank = ranks.of(config, os.environ)
    with storage.mirrored(config.out, writable=True) as mirror:
        job, placed = begin(config, mirror)
        with placed.open() as tokens:
            return _run(job, tokens, progress, stop, execute, rank)


@numerics.nan_is_missing()
def begin(
    config: RunConfig, mirror: storage.Storage | None = None
) -> tuple[Job, token_folder.Ingested]:
    """Creates a run directory with its spec and its tokens, or finds that it has begun.

    Args:
        config: From ``config.load``.
        mirror: Of its ``out``, if that is in an object store.

    Returns:
        What it computes, and its token file.

    Raises:
        JaxlensError: See ``errors``.
    """
    if mirror is not None:
        config = dataclasses.replace(config, out=str(mirror.path))
    with scratch.folder() as temporary:
        job = dataclasses.replace(prepare.prepare(config, temporary), mirror=mirror)
        disk = job.storage.disk
        token_counts.publish_counts(job)  # before the spec, which names their sha256
        type_means.publish_table(job)
        run_directory.create_run(job.out, job.spec_bytes, disk)
        return job, token_folder.copy_to(job.ingested, job.out / layout.TOKENS, disk)


def _run(
    job: Job,
    tokens: token_file.TokenFile,
    progress: Progress | None,
    stop: preemption.StopRequest,
    execute: executors.Executor,
    rank: tuple[int, int],
) -> Result:
    # Records and sizes: whether every byte is as it was written is looked at in the end.
    missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
    count = Count(job.plan.tokens_of_shard, progress)
    rate = None
    if mine := shares.numbers(job, missing, rank, count, progress):
        rate = execute(job, tokens, mine, count, stop)
    job.storage.refresh()
    finished = not shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
    if finished:
        finish(job, lambda damaged: execute(job, tokens, damaged, count, stop), stop)
    elif stop.requested:
        raise stop.interruption()
    return Result(
        out=job.storage.name,
        spec_hash=job.spec_hash,
        n_tokens=job.plan.n_tokens,
        n_shards=job.plan.n_shards,
        computed=count.shards,
        tokens_per_second=rate if count.shards else None,
        finished=finished,
        skipped=job.ingested.skipped,
        fill=job.plan.fill,
    )


def finish(
    job: Job, recompute: Callable[[Sequence[int]], object], stop: preemption.StopRequest
) -> None:
    """Builds the derived files; shards that turn out to be damaged are computed again first.

    Args:
        job: Sweep, whose shards are all there.
        recompute: Publishes shards again.
        stop: Whether to give up.

    Raises:
        InterruptedRun: A stop was requested meanwhile.
        DataError: The shards do not fit together.
        StorageError: The disk is full or failed.
    """
    try:
        finalize.finalize(job.out, job.storage.disk)
    except errors.DataError:
        damaged = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash)
        if not damaged:
            raise
        logger.warning("%s damaged, computed again", errors.count(len(damaged), "shard"))
        recompute(damaged)
        if stop.requested:
            raise stop.interruption() from None
        finalize.finalize(job.out, job.storage.disk)
