"""The sweep: find the shards that a run lacks, have them computed, build the derived files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from jaxlens import arguments, config_values, errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_file, token_folder
from jaxlens.files import scratch
from jaxlens.lens import numerics
from jaxlens.store import finalize, layout, run_directory, shards
from jaxlens.sweep import executors, preemption, prepare, token_counts, type_means
from jaxlens.sweep.job import Job
from jaxlens.sweep.progress import Progress

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


@numerics.nan_is_missing()
def run(
    config: RunConfig,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
    executor: str = "process",
) -> Result:
    """Sweeps a corpus into a run directory; the same call resumes.

    Args:
        config: From ``config.load``.
        progress: Receives updates.
        stop: Checked before every step.
        executor: One of ``executors.EXECUTORS``.

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
    execute = executors.EXECUTORS[executor]
    job, placed = begin(config)
    with placed.open() as tokens:
        return _run(job, tokens, progress, stop or preemption.StopRequest(), execute)


@numerics.nan_is_missing()
def begin(config: RunConfig) -> tuple[Job, token_folder.Ingested]:
    """Creates a run directory with its spec and its tokens, or finds that it has begun.

    Args:
        config: From ``config.load``.

    Returns:
        What it computes, and its token file.

    Raises:
        JaxlensError: See ``errors``.
    """
    with scratch.folder() as temporary:
        job = prepare.prepare(config, temporary)
        token_counts.publish_counts(job)  # before the spec, which names their sha256
        type_means.publish_table(job)
        run_directory.create_run(job.out, job.spec_bytes)
        return job, token_folder.copy_to(job.ingested, job.out / layout.TOKENS)


def _run(
    job: Job,
    tokens: token_file.TokenFile,
    progress: Progress | None,
    stop: preemption.StopRequest,
    execute: executors.Executor,
) -> Result:
    missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash)
    index, total = config_values.shard_of(job.config.shard)
    mine = [shard for shard in missing if shard % total == index]
    rate = None
    if mine:
        if progress is not None:
            progress.begin(*_extent(job, mine, range(index, job.plan.n_shards, total)))
        rate = execute(job, tokens, mine, progress, stop)
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


def _extent(job: Job, missing: Iterable[int], all_mine: Iterable[int]) -> tuple[int, int]:
    """Tokens of this worker's shards, and how many of them are recorded already."""

    def tokens(shards: Iterable[int]) -> int:
        return sum(stop - start for start, stop in map(job.plan.tokens_of_shard, shards))

    total = tokens(all_mine)
    return total, total - tokens(missing)
