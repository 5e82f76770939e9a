"""The table of means of token types of a run without rows: made before its spec, or found.

A new run takes the means of a sample of its own text, by the steps and tallies of the sweep itself,
or those of the tallies of a previous run. A run that has begun keeps its table.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from jaxlens import errors
from jaxlens.corpus import plan, references, token_file
from jaxlens.lens import numerics
from jaxlens.store import layout, reader, type_means_file, worker_notes
from jaxlens.sweep import compute, preemption, workers
from jaxlens.sweep.job import Job
from jaxlens.tally import definitions, sampling, type_means, update

logger = logging.getLogger("jaxlens")

SHARE = 0.01
"""Share of the tokens that the sample takes."""

MIN_TOKENS, MAX_TOKENS = 32_768, 1_048_576
"""Fewest tokens of the sample, where the corpus has them, and most."""

Sums = dict[str, Int64[np.ndarray, "..."]]


def with_table(job: Job, existing_spec: Mapping[str, Any] | None, temporary: Path) -> Job:
    """The job with its table, which the spec then names; unchanged where it needs none.

    Args:
        job: Without a table.
        existing_spec: The spec of the run, if it has begun.
        temporary: Folder for the sampled tokens.

    Raises:
        ConfigError: A previous run is named for a run that has no use for it, that is of
            something else, or that the table there was not made from; or that was made for another
            run.
        DataError: The run's table is missing or damaged.
    """
    needed = job.config.store.tallies in definitions.WITH_TYPE_MEANS
    begun_without = (
        existing_spec is not None and type_means_file.FILE.recorded(existing_spec) is None
    )
    if not needed or begun_without:
        _refuse_source(job, begun_without)
        return job
    if existing_spec is not None:
        table = type_means_file.read(job.out, existing_spec)
        _require_means_of_source(job, table, "leave it out: a run that has begun keeps its means")
        return _named(job, table)
    found = None
    if job.config.out is not None:
        found = type_means_file.find(job.out, job.spec)
    if found is not None:
        file = type_means_file.FILE.path(job.out)
        _require_means_of_source(
            job, found, f"remove {file}, which no run has taken, or leave it out"
        )
    return _named(job, found or _make(job, temporary))


def publish_table(job: Job) -> None:
    """Publishes the table of a job, unless it is there; before the spec that names it.

    Raises:
        ConfigError: Another process has published another one.
        StorageError: The disk is full or failed.
    """
    if job.type_means is None:
        return
    if not type_means_file.FILE.publish(job.out, job.type_means.data, job.storage.disk):
        raise errors.ConfigError(
            f"{type_means_file.FILE.path(job.out)} was published meanwhile, with other means",
            "run the same command again",
        )


def _named(job: Job, table: type_means_file.Table) -> Job:
    """The job with a table, and the spec that names it."""
    job = job.with_section(type_means_file.SECTION, {"sha256": table.sha256})
    return dataclasses.replace(job, type_means=table)


def _make(job: Job, temporary: Path) -> type_means_file.Table:
    source = job.config.type_means
    sums = _of_sample(job, temporary) if source is None else _of_run(job, source)
    means = type_means.of_sums(sums, job.token_counts)
    return type_means_file.encode(means, job.spec, int(sums["type_count"].sum()))


def _of_sample(job: Job, temporary: Path) -> Sums:
    """Sums by type of a sample of contexts."""
    sample = _sampled(job, temporary)
    logger.info("taking means of token types from %s", errors.count(sample.plan.n_tokens, "token"))
    needed = tuple(definitions.BY_NAME[name] for name in type_means.NEEDED)
    with sample.ingested.open() as text, numerics.matmul_precision(job.config.lens.precision):
        compiled = workers.compile_workers(sample, needed)
        shards, stop = range(sample.plan.n_shards), preemption.StopRequest()
        done = [one.totals for one in compute.shards(sample, text, shards, compiled, stop)]
    return update.merge(done)


def choose_windows(
    windows: plan.Plan, index: token_file.Index
) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " chosen"]]:
    """The windows of the sample, and the document of each, in the order of the token file.

    They are those with the lowest hashes of document and place, so that they depend on neither
    the order of the corpus nor the shape of steps.

    Args:
        windows: Plan of the run.
        index: Of its token file.
    """
    document = references.document_of(index.document_start, windows.window_start)
    offset = windows.window_start - index.document_start[document]
    key = sampling.key_of(index.document_hash[document], offset)
    order = np.lexsort((np.arange(windows.n_windows), key))
    wanted = min(max(SHARE * index.n_tokens, MIN_TOKENS), MAX_TOKENS)
    reached = np.cumsum(windows.window_length[order])
    chosen = np.sort(order[: int(np.searchsorted(reached, wanted)) + 1])
    return chosen, document[chosen]


def _sampled(job: Job, temporary: Path) -> Job:
    """A job over the sampled windows, each a document; rarity and steps are those of the run."""
    index = job.ingested.index
    chosen, document = choose_windows(job.plan, index)
    begin, size = job.plan.window_start[chosen], job.plan.window_length[chosen].astype(np.int64)
    folder = temporary / "type-means"
    folder.mkdir()
    with job.ingested.open() as text, (folder / layout.TOKEN_FILE).open("wb") as file:
        for first, last in zip(begin.tolist(), (begin + size).tolist(), strict=True):
            file.write(text.read(first, last).tobytes())
    sample = token_file.Index(
        document_start=np.concatenate([[0], np.cumsum(size)]),
        document_hash=index.document_hash[document],
        document_id=index.document_id[document],
        token_counts=index.token_counts,
    )
    windows = plan.build(
        sample.document_start,
        length=job.plan.length,
        step_sequences=job.plan.step_sequences,
        shard_tokens=sample.n_tokens + job.plan.capacity,
        bos_id=job.plan.bos_id,
    )
    return dataclasses.replace(
        job,
        ingested=dataclasses.replace(job.ingested, directory=folder, index=sample),
        plan=windows,
        step_config=dataclasses.replace(job.step_config, stored=()),
    )


def _of_run(job: Job, source: str) -> Sums:
    """Sums by type of a previous run.

    Raises:
        ConfigError: It is of another model, decoder or tokenizer, or has no such tallies.
    """
    with reader.open_run(source) as run:
        for what, (section, name) in _ALIKE.items():
            theirs = (run.spec.get(section) or {}).get(name)
            if theirs != job.spec[section][name]:
                raise errors.ConfigError(
                    f"type_means: {source} has another {what}: {theirs!s:.40}, "
                    f"not {job.spec[section][name]!s:.40}",
                    "name a run of the same model, decoder and tokenizer, or leave it out",
                )
        if not all(name in run.tally for name in type_means.NEEDED):
            raise errors.ConfigError(
                f"type_means: {source} has no sums by token type",
                "name a run with --tallies study, or leave it out",
            )
        return {name: run.tally[name] for name in type_means.NEEDED}


_ALIKE = {
    "model": ("model", "sha256"),
    "decoder": ("lens", "decoder"),
    "tokenizer": ("tokenizer", "sha256"),
}


def _require_means_of_source(job: Job, table: type_means_file.Table, hint: str) -> None:
    """Refuses a previous run that would be ignored, because the table there is another one.

    Where the run has noted that it began with this previous run, that may be gone since.

    Raises:
        ConfigError: Naming the previous run.
    """
    source = job.config.type_means
    if source is None:
        return
    noted = (note.get("settings") for note in worker_notes.read(job.out))
    if any(isinstance(one, dict) and one.get("type_means") == source for one in noted):
        return
    try:
        sums = _of_run(job, source)
        means = type_means.of_sums(sums, job.token_counts)
        if all(map(np.array_equal, means, table.means)):
            return
        why = "has other means of token types"
    except (errors.MissingError, errors.DataError) as error:
        why = f"holds means of token types already, and that cannot be compared: {error.message}"
    raise errors.ConfigError(f"type_means names {source}, but {job.out} {why}", hint)


def _refuse_source(job: Job, begun_without: bool) -> None:
    if (source := job.config.type_means) is None:
        return
    why = (
        f"{job.out} has begun without means of token types"
        if begun_without
        else f"store.tallies: {job.config.store.tallies} subtracts no means of token types"
    )
    raise errors.ConfigError(
        f"type_means names {source}, but {why}",
        "leave it out; it is for new runs with --tallies study --rows none",
    )
