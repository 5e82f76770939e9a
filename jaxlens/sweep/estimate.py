"""What a sweep would cost, measured on one step without writing a run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Int

from jaxlens.config import RunConfig
from jaxlens.corpus import token_file
from jaxlens.files import fetching, scratch
from jaxlens.lens import numerics
from jaxlens.store import run_directory, storage
from jaxlens.sweep import prepare, step, temperatures
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker, compile_workers
from jaxlens.tally import definitions

_TALLY_ITEM = 8

_LONG_STEP = 10.0
"""Seconds of a step beyond which no second one is measured."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Attributes:
        out: Run directory that it would have; None where its name depends on temperatures that are
            not fitted yet.
        tokens: Tokens of the corpus, one row each.
        documents: Documents that hold them.
        skipped: Documents and lines passed over.
        shards: Files.
        steps: Steps of ``length`` times ``step_sequences`` positions.
        fill: Share of these positions that hold a token.
        row_bytes: Bytes a row on disk.
        tally_bytes: Tallies, which each device, and each shard before compression, holds once.
        type_means_bytes: Means of token types, which each device holds once; 0 without.
        disk_bytes: Rows, tallies before compression, and tokens.
        model_devices: Devices that share one copy of the model.
        device_bytes: Of each device: weights, input, scratch, outputs of the steps under way.
        compile_seconds: Time to compile the step.
        seconds: Steps times the time of the one that was run.
        fitted_tokens: Tokens that the run would first fit temperatures to, which no other time
            here includes; 0 where these are known.
        fitted_documents: Documents that begin with them.
    """

    out: str | None
    tokens: int
    documents: int
    skipped: int
    shards: int
    steps: int
    fill: float
    row_bytes: int
    tally_bytes: int
    type_means_bytes: int
    disk_bytes: int
    model_devices: int
    device_bytes: int
    compile_seconds: float
    seconds: float
    fitted_tokens: int
    fitted_documents: int


@numerics.nan_is_missing()
def estimate(config: RunConfig) -> Estimate:
    """Tokenises the corpus into a temporary folder, compiles the step and times it.

    Temperatures are not fitted: a step takes as long with any.

    Raises:
        JaxlensError: Whatever ``sweep.run`` would raise before its first shard.
    """
    with storage.mirrored(config.out) as mirror:
        if mirror is not None:
            config = dataclasses.replace(config, out=str(mirror.path))
        return _estimate(config)


def _estimate(config: RunConfig) -> Estimate:
    with scratch.folder() as temporary:
        job = prepare.prepare(config, temporary, read_only=True, fit=False)
        run_directory.require_same_run(job.out, job.spec_bytes)
        with job.ingested.open() as tokens:
            prepare.check_identity(job, tokens)
            began = time.perf_counter()
            workers = compile_workers(job)
            compile_seconds = time.perf_counter() - began
            seconds = _step_seconds(job, workers, tokens)
        device_bytes = step.device_bytes(workers[0].step)
    architecture = job.resolved.architecture
    tallies = definitions.items(
        architecture.n_layer + 1, architecture.vocab_size, job.config.store.tallies
    )
    means = () if job.type_means is None else job.type_means.means
    means_bytes = sum(table.nbytes for table in means)
    token_bytes = job.ingested.index.dtype.itemsize
    n_tokens = job.plan.n_tokens
    fitted = _fitted(job)
    return Estimate(
        out=None if config.out is None and len(fitted) else fetching.name_of(job.out),
        tokens=n_tokens,
        documents=job.ingested.index.n_documents,
        skipped=sum(job.ingested.skipped.values()),
        shards=job.plan.n_shards,
        steps=job.plan.n_steps,
        fill=job.plan.fill,
        row_bytes=job.resolved.row_bytes,
        tally_bytes=tallies * _TALLY_ITEM,
        type_means_bytes=means_bytes,
        disk_bytes=n_tokens * (job.resolved.row_bytes + token_bytes)
        + means_bytes
        + job.plan.n_shards * tallies * _TALLY_ITEM,
        model_devices=job.resolved.model_devices,
        device_bytes=device_bytes,
        compile_seconds=compile_seconds,
        seconds=seconds * job.plan.n_steps,
        fitted_tokens=int(fitted.sum()),
        fitted_documents=len(fitted),
    )


def _fitted(job: Job) -> Int[np.ndarray, " document"]:
    """Tokens of each document that temperatures would be fitted to; none where they are known."""
    if job.config.lens.temperatures is not None:
        return np.zeros(0, np.int64)
    index, length = job.ingested.index, job.plan.length - job.plan.lead
    sizes = np.diff(index.document_start)[temperatures.sample(index, length)]
    return np.minimum(sizes, length)


def _step_seconds(job: Job, workers: Sequence[Worker], tokens: token_file.TokenFile) -> float:
    """Time of a step while each worker computes one; of two where steps are short, the second."""
    totals = [worker.zero_totals() for worker in workers]
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        rows = []
        for i, worker in enumerate(workers):
            batch, columns = job.batch(i % job.plan.n_steps, tokens)
            stored, totals[i] = worker.run(batch, job.tally_columns(columns), totals[i])
            rows.append(stored)
        jax.device_get((rows, totals))
        seconds = time.perf_counter() - began
        if seconds > _LONG_STEP:  # what a first step takes for itself is a small part of it
            break
    return seconds / len(workers)
