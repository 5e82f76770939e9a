"""Repair of a run: damaged shards are computed again, bit for bit, and nothing else is touched."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_folder
from jaxlens.files import contained, publish, scratch
from jaxlens.lens import numerics
from jaxlens.store import (
    commit,
    finalize,
    layout,
    manifest,
    records,
    segments,
    shards,
    verify,
    worker_notes,
)
from jaxlens.store.merged import sources
from jaxlens.sweep import in_process, preemption, reopen
from jaxlens.sweep.progress import Count, Progress

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True)
class Repaired:
    """What `repair` did.

    Attributes:
        found: Findings before, as in `verify.Report`.
        recomputed: Shards that were computed again.
        other_bits: Those of them that differ from what the manifest lists.
        left: Findings after.
        finished: Whether the run is.
    """

    found: tuple[tuple[str, str], ...]
    recomputed: tuple[int, ...]
    other_bits: tuple[int, ...]
    left: tuple[tuple[str, str], ...]
    finished: bool = True


@numerics.nan_is_missing()
def repair(
    run_dir: str | Path,
    config: RunConfig,
    progress: Progress | None = None,
    stop: preemption.StopRequest | None = None,
) -> Repaired:
    """Makes a run whole again.

    The spec says what to compute; only the places of the model and, where the token file is
    damaged, of the corpus come from the configuration. No path that the run names is followed.
    Files that belong to no run are left alone. Shards of a run without a manifest that are absent
    altogether are for ``jaxlens run`` to compute, not damage.

    Args:
        run_dir: Run.
        config: Where model and corpus are.
        progress: Receives updates.
        stop: Checked before every step.

    Raises:
        ConfigError: The model or the corpus is not that of the run, or it is one of merged runs.
        DataError: ``RUN.json`` is damaged and there is no copy of it.
        JaxlensError: See ``errors``; what was repaired stays so.
    """
    sources.refuse(run_dir, f"repair the runs that were merged, then jaxlens finalize {run_dir}")
    before = verify.verify(run_dir)
    if before.ok:
        return Repaired((), (), (), ())
    _require_no_directory(run_dir, before)
    _restore_spec(run_dir)
    spec = layout.read_spec(run_dir)
    listed = _listed(run_dir, spec)
    again = _to_recompute(run_dir, spec, before, listed)
    if again or any(name.startswith(f"{layout.TOKENS}/") for name, _ in before.damaged):
        _recompute(run_dir, spec, again, config, progress, stop or preemption.StopRequest())
    if len(shards.sound_shards(run_dir, spec.n_shards, spec.hash, "fast")) == spec.n_shards:
        finalize.finalize(run_dir)
    others = [n for n in again if n in listed and layout.read_record(run_dir, n) != listed[n]]
    after = verify.verify(run_dir)
    return Repaired(before.damaged, tuple(again), tuple(others), after.damaged, after.finished)


def _require_no_directory(run_dir: str | Path, report: verify.Report) -> None:
    """Refuses, before anything is removed, a directory that stands in the place of a file.

    Raises:
        DataError: A directory has the name of a file of the run.
    """
    folders = (layout.SHARDS, layout.TOKENS, layout.ENVIRONMENT)
    for name, _ in report.damaged:
        path = Path(run_dir) / name
        if name not in folders and path.is_dir() and not path.is_symlink():
            raise errors.DataError(
                f"{path} is a directory, where a file of the run belongs",
                "remove it, then run the same command again",
            )


def _restore_spec(run_dir: str | Path) -> None:
    """Writes ``RUN.json`` again from the copies in ``environment``, if the shards know it."""
    votes = shards.count_specs(run_dir)
    try:
        spec = layout.read_spec(run_dir)
        if not votes or votes[spec.hash]:
            return
    except (errors.MissingError, errors.DataError):
        pass
    for note in worker_notes.read(run_dir, checked=False):  # the copy has a hash of its own
        if isinstance(note.get("spec"), dict):
            copy = run_config.canonical(note["spec"])
            if votes[run_config.spec_hash(copy)]:
                publish.publish(contained.contained(run_dir, layout.RUN), copy)
                return
    raise errors.DataError(
        f"{run_dir}: {layout.RUN} is damaged, and no copy of it is left",
        f"remove {layout.RUN} and start the same jaxlens run again: it finds its shards",
    )


def _listed(run_dir: str | Path, spec: layout.Spec) -> dict[int, records.Record]:
    """The records of the manifest by shard; none where it is missing or damaged."""
    try:
        n_present = len(segments.existing_shards(run_dir, spec.n_shards))
        table = manifest.read(run_dir, n_present)
    except (errors.MissingError, errors.DataError):
        return {}
    return {entry.shard: entry for entry in table} if table.spec_hash == spec.hash else {}


def _to_recompute(
    run_dir: str | Path, spec: layout.Spec, report: verify.Report, listed: Collection[int]
) -> list[int]:
    """Shards to compute again: of those in the manifest or, without one, of those present.

    A damaged plan may promise any number beyond these.
    """
    present = set(segments.existing_shards(run_dir, spec.n_shards))
    damaged = present.union(listed) - shards.sound_shards(run_dir, spec.n_shards, spec.hash)
    for name, _ in report.damaged:
        number = layout.part_number(name.rpartition("/")[2])
        # A sound shard can be named too: one that is not what the manifest lists.
        if number is not None and number < spec.n_shards and name == layout.shard_file(number):
            damaged.add(number)
    if not listed:
        damaged &= present
    return sorted(number for number in damaged if number < spec.n_shards)


def _recompute(
    run_dir: str | Path,
    spec: layout.Spec,
    numbers: list[int],
    config: RunConfig,
    progress: Progress | None,
    stop: preemption.StopRequest,
) -> None:
    with scratch.folder() as temporary:
        ingested = token_folder.find_whole(Path(run_dir) / layout.TOKENS, spec.document)
        job = reopen.reopen(run_dir, spec, config, temporary, ingested, "repair")
        placed = token_folder.copy_to(job.ingested, job.out / layout.TOKENS)
    if not numbers:
        return
    with placed.open() as tokens:
        for shard in numbers:
            commit.discard(run_dir, shard)
        if progress is not None:
            total = sum(stop - start for start, stop in map(job.plan.tokens_of_shard, numbers))
            progress.begin(total, 0)
        count = Count(job.plan.tokens_of_shard, progress)
        in_process.get_ready(job, tokens).publish(numbers, count, stop)
    if stop.requested:
        raise stop.interruption()
