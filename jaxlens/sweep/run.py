"""The sweep: which shards a run lacks, their computing and publishing, and what is noted of it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxlens import config as configs
from jaxlens import errors
from jaxlens.corpus import token_file, token_folder
from jaxlens.files import publish
from jaxlens.files import scratch as scratches
from jaxlens.lens import numerics
from jaxlens.store import commit, finalize, layout, records, run_directory, shards, writer
from jaxlens.store.hdf5 import buffers
from jaxlens.sweep import environment, executor, reproduce, workers
from jaxlens.sweep import job as jobs
from jaxlens.sweep import preemption as graces

logger = logging.getLogger("jaxlens")


class Progress(Protocol):
    """Is told how far a sweep is."""

    def begin(self, total: int, done: int) -> None:
        """The sweep starts with ``done`` of its ``total`` tokens recorded."""

    def advance(self, count: int) -> None:
        """More tokens are recorded."""


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
    config: configs.RunConfig,
    progress: Progress | None = None,
    grace: graces.Grace | None = None,
) -> Result:
    """Sweeps a corpus into a run directory; the same call resumes.

    Args:
        config: From ``config.load``.
        progress: Is told how far it is.
        grace: Is asked whether to stop.

    Raises:
        ConfigError: ``config`` is something else.
        InterruptedRun: It was asked to stop.
        JaxlensError: See ``errors``; whatever was committed stays.
    """
    if not isinstance(config, configs.RunConfig):
        raise errors.ConfigError(
            f"the configuration is a {type(config).__name__}",
            "give jaxlens.config.load([files], os.environ, {'corpus.paths': [...]})",
        )
    with scratches.folder() as scratch:
        job = jobs.prepare(config, scratch)
        run_directory.create_run(job.out, job.spec_bytes)
        placed = token_folder.copy_to(job.ingested, job.out / layout.TOKENS)
    with placed.open() as tokens:
        return _run(job, tokens, progress, grace or graces.Grace())


def _run(
    job: jobs.Job, tokens: token_file.TokenFile, progress: Progress | None, grace: graces.Grace
) -> Result:
    missing = shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash)
    index, total = configs.shard_of(job.config.shard)
    mine = [shard for shard in missing if shard % total == index]
    rate = None
    if mine:
        if progress is not None:
            progress.begin(*_extent(job, mine, range(index, job.plan.n_shards, total)))
        rate = complete(job, tokens, mine, progress, grace)
    finished = not shards.missing_shards(job.out, job.plan.n_shards, job.spec_hash, "fast")
    if finished:
        finalize.finalize(job.out)
    elif grace.asked:
        raise grace.interruption()
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
    job: jobs.Job,
    tokens: token_file.TokenFile,
    numbers: Sequence[int],
    progress: Progress | None,
    grace: graces.Grace,
) -> float:
    """Computes and publishes shards of a run that has begun.

    Before the first of them the lens must reproduce the model (the identity gate), and this
    environment what others have committed (the canary).

    Returns:
        Tokens a second of the sweep itself, compilation left out.

    Raises:
        NumericalError: The gate or the canary failed; nothing was written.
        StorageError: The disk is full or failed.
    """
    here = environment.describe()
    measured: dict[str, Any] = {"identity_gate_nat": jobs.gate(job, tokens), "shards": len(numbers)}
    logger.info("compiling the step")
    devices = workers.make(job)
    measured["devices"] = len(devices)
    if (witness := reproduce.witness(job, here)) is not None:
        measured["canary"] = reproduce.sing(job, tokens, devices, witness)
    _note(job, here, measured)
    rate = publish_all(job, tokens, numbers, devices, grace, progress)
    _note(job, here, measured | {"tokens_per_second": rate})
    return rate


def publish_all(
    job: jobs.Job,
    tokens: token_file.TokenFile,
    numbers: Iterable[int],
    devices: Sequence[workers.Lane],
    grace: graces.Grace,
    progress: Progress | None = None,
) -> float:
    """Computes shards on devices that are ready, and publishes them beside.

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

    memory = buffers.Buffer()
    began = time.perf_counter()
    with grace.finishing(), writer.Writer() as publisher:
        for shard in executor.shards(job, tokens, numbers, devices, grace, advance):
            publisher.submit(functools.partial(_publish, job, shard, memory))
    return recorded / (time.perf_counter() - began)


def _extent(job: jobs.Job, missing: Iterable[int], all_mine: Iterable[int]) -> tuple[int, int]:
    """Tokens of this worker's shards, and how many of them are recorded already."""

    def tokens(chosen: Iterable[int]) -> int:
        return sum(stop - start for start, stop in map(job.plan.tokens_of_shard, chosen))

    total = tokens(all_mine)
    return total, total - tokens(missing)


def _publish(job: jobs.Job, shard: executor.Shard, memory: buffers.Buffer) -> None:
    """Puts a shard together and commits it; runs in the writer's thread, one at a time."""
    data, rows = executor.build(job, shard, memory)
    where = executor.place(job, shard.number)
    if commit.publish_shard(job.out, where, data, rows) is not None:
        logger.warning(
            "shard %d was committed meanwhile, with other bits; that one stands", shard.number
        )


def _note(job: jobs.Job, here: dict[str, Any], measured: dict[str, Any]) -> None:
    """Leaves what must not matter: versions, devices, paths, times; and a copy of the spec."""
    document = {
        "environment": here,
        "measured": measured,
        "settings": dataclasses.asdict(job.config),
        "spec": job.spec,
    }
    path = layout.environment_path(job.out, environment.worker_name())
    publish.publish(path, records.encode_note(document))
