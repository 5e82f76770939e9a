"""The counts by which a run defines rarity, where it shares them with runs over other parts.

A new run adds up the counts of the token files that it is given and publishes them before its spec;
a run that has begun keeps its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxlens import errors
from jaxlens.corpus import token_folder
from jaxlens.store import corpus_index, storage, token_counts_file, worker_notes
from jaxlens.sweep.job import Job


def with_counts(job: Job, existing_spec: Mapping[str, Any] | None) -> Job:
    """The job with its counts, which the spec then names; unchanged where they are its own.

    Args:
        job: Without them.
        existing_spec: The spec of the run, if it has begun.

    Raises:
        MissingError: A token file is not there, or not whole.
        ConfigError: One is of another vocabulary, or the run has begun with other counts.
        DataError: The run's counts are missing or damaged.
    """
    named = job.config.token_counts
    if existing_spec is None:
        return _named(job, _added(job)) if named else job
    begun_without = token_counts_file.FILE.recorded(existing_spec) is None
    table = None if begun_without else token_counts_file.read(job.out, existing_spec)
    if named and not _is_noted(job) and not _are(table, job):
        which = "the counts of its own text" if table is None else "other counts"
        raise errors.ConfigError(
            f"token_counts names {named[0]}, but {job.out} has begun with {which}",
            "leave it out: a run that has begun keeps its counts",
        )
    return job if table is None else _named(job, table)


def _named(job: Job, table: token_counts_file.Table) -> Job:
    job = job.with_section(token_counts_file.SECTION, {"sha256": table.sha256})
    return dataclasses.replace(job, shared_counts=table)


def _are(table: token_counts_file.Table | None, job: Job) -> bool:
    """Whether a run's counts are those that the configuration names."""
    return table is not None and np.array_equal(table.counts, _added(job).counts)


def _is_noted(job: Job) -> bool:
    """Whether the run has noted that it began with these token files, which may be gone since."""
    named = list(job.config.token_counts)
    noted = (note.get("settings") for note in worker_notes.read(job.out))
    return any(isinstance(one, dict) and one.get("token_counts") == named for one in noted)


def publish_counts(job: Job) -> None:
    """Publishes the counts of a job, unless they are there; before the spec that names them.

    Raises:
        ConfigError: Others are there.
        StorageError: The disk is full or failed.
    """
    if job.shared_counts is None:
        return
    if not token_counts_file.FILE.publish(job.out, job.shared_counts.data, job.storage.disk):
        path = token_counts_file.FILE.path(job.out)
        raise errors.ConfigError(
            f"{path} holds other counts, of a run that never began",
            f"remove {path}, or use another --out",
        )


def _added(job: Job) -> token_counts_file.Table:
    """The counts of all token files that the configuration names."""
    own = token_folder.token_strings(job.ingested)
    total: Int64[np.ndarray, "fold=2 vocab"] = np.zeros((2, len(own)), np.int64)
    seen: dict[str, str] = {}
    for name in job.config.token_counts:
        try:
            with storage.readable(name) as run_dir:
                found = corpus_index.read(run_dir, {"model": job.spec["model"]}, ())
        except errors.MissingError as error:
            raise errors.MissingError(
                f"token_counts names {name}, which has no token file: {error.message}",
                f"make it with jaxlens tokenize --out {name}",
            ) from error
        if not np.array_equal(found.token_strings, own):
            raise errors.ConfigError(
                f"token_counts names {name}, which is of another vocabulary than the model's",
                "tokenise it with the tokenizer of this model: jaxlens tokenize --model ...",
            )
        if (digest := found.record.sha256) in seen:
            raise errors.ConfigError(
                f"token_counts names {seen[digest]} and {name}, which hold the same tokens",
                "name each part once",
            )
        seen[digest] = name
        total += found.token_counts
    return token_counts_file.encode(total)
