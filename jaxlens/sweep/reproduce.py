"""Before an environment adds to a run, it recomputes a shard that another has committed.

On the same hardware, versions and flags shards are equal to the bit; elsewhere the last digits
differ, which is recorded, and more than that is refused.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import config, errors, schema
from jaxlens.corpus import token_file
from jaxlens.files import contained, publish
from jaxlens.store import layout, segments, shards, worker_notes
from jaxlens.store.hdf5 import reading
from jaxlens.sweep import compute, environment, preemption
from jaxlens.sweep.job import Job
from jaxlens.sweep.workers import Worker
from jaxlens.tally import bins

SHARE = 0.01
"""Share of ranks and ids that may differ by more than rounding of the logits explains."""

TOLERANCE = {"float32": 2e-3, "bf16x3": 2e-3, "tf32": 0.05, "bfloat16": 0.1}
"""Largest difference, absolute and relative, of a float or of a ln rank, by operand precision.

Float32 sums in another order differ by some 1e-5, and rows of ``core`` are rounded to float16,
whose neighbours are 1e-3 apart; of the others the operands themselves are rounded otherwise.
"""

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True)
class _Difference:
    """How far two arrays of a quantity are apart.

    Attributes:
        largest: Largest difference of floats, 0 for others.
        share: Share of the other values that differ by more than the tolerance.
        structural: Whether what must be equal is not: shape, or which values are missing.
    """

    largest: float = 0.0
    share: float = 0.0
    structural: bool = False


def shard_to_reproduce(job: Job, here: Mapping[str, Any]) -> int | None:
    """A committed shard that this environment has to reproduce first.

    None where nothing is committed, where this environment began the run, or where it has
    reproduced a shard before.

    Args:
        job: Sweep.
        here: See ``environment.describe``.
    """
    committed = segments.existing_shards(job.out, job.plan.n_shards)
    if not committed or _is_known(job, environment.decisive(here)):
        return None
    for shard in committed:
        try:
            return shards.check(job.out, shard, job.spec_hash).shard
        except (errors.MissingError, errors.DataError):
            continue
    return None


def check_reproduces(
    job: Job, tokens: token_file.TokenFile, workers: Sequence[Worker], shard: int
) -> dict[str, Any]:
    """Recomputes a committed shard and compares it with the file.

    Returns:
        JSON values: the shard, whether all bits are equal, and the differences if not.

    Raises:
        NumericalError: The differences are beyond what another environment explains.
    """
    logger.info("another environment: recomputing shard %d to compare", shard)
    (again,) = compute.shards(job, tokens, [shard], workers, preemption.StopRequest())
    ours = {
        **compute.stored_columns(job, again),
        **{f"tally/{k}": v for k, v in again.totals.items()},
    }
    entry = shards.check(job.out, shard, job.spec_hash, "fast")
    path = layout.shard_path(job.out, shard)
    with shards.open_shard(job.out, entry) as contents, reading.reading(path):
        theirs = {name: reading.whole(contents.datasets[name], 1 << 30) for name in ours}
    if all(_same_bits(ours[name], theirs[name]) for name in ours):
        return {"shard": shard, "equal": True}
    return {"shard": shard, "equal": False, **_judge(job, shard, ours, theirs)}


def _judge(
    job: Job, shard: int, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, float]:
    tolerance = TOLERANCE[job.config.lens.precision]
    differences = {name: _compare(name, ours, theirs, tolerance) for name in ours}
    for name, difference in differences.items():
        if difference.structural or difference.largest > tolerance or difference.share > SHARE:
            raise errors.NumericalError(
                f"{job.out}: this environment does not reproduce {name} of shard {shard}"
                f" (off by {difference.largest:.3g}, {difference.share:.2%} of its values)",
                "resume where the run began (see its folder environment), or use another --out",
            )
    largest = max(difference.largest for difference in differences.values())
    logger.warning("the bits of this environment differ, by at most %.2g: recorded", largest)
    return {
        "largest": largest,
        "share": max(difference.share for difference in differences.values()),
    }


def _compare(
    name: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], tolerance: float
) -> _Difference:
    one, other = ours[name], theirs[name]
    if one.shape != other.shape or one.dtype != other.dtype:
        return _Difference(structural=True)
    if name == "tally/sum":
        return _of_means(ours, theirs)
    if name.startswith("tally/"):
        # Counts follow from the tokens alone; histograms and the rest from values compared here.
        exact = name in ("tally/count", "tally/token_count")
        return _Difference(structural=exact and not _same_bits(one, other))
    kind = schema.QUANTITIES[name].kind
    if kind == "float":
        return _of_floats(one.astype(np.float64), other.astype(np.float64))
    if kind == "rank":
        missing = not np.array_equal(one == 0, other == 0)
        far = np.abs(np.log(np.maximum(one, 1)) - np.log(np.maximum(other, 1))) > tolerance
        return _Difference(share=_share(far), structural=missing)
    if name in schema.COLUMNS:
        return _Difference(structural=not _same_bits(one, other))
    return _Difference(share=_share(one != other))


def _of_floats(one: np.ndarray, other: np.ndarray) -> _Difference:
    if not np.array_equal(np.isnan(one), np.isnan(other)):
        return _Difference(structural=True)
    distance = np.abs(one - other) / (1.0 + np.abs(other))
    known = distance[~np.isnan(distance)]
    return _Difference(largest=float(known.max(initial=0.0)))


def _of_means(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> _Difference:
    """Differences of the averages, which exist even where no rows are kept."""
    scale = 2.0**bins.FIXED_POINT_BITS * np.maximum(theirs["tally/count"], 1)
    return _of_floats(ours["tally/sum"] / scale, theirs["tally/sum"] / scale)


def _share(differs: np.ndarray) -> float:
    return float(differs.mean()) if differs.size else 0.0


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def remember(job: Job, here: Mapping[str, Any]) -> None:
    """Records that an environment may add to a run, for the workers that start later.

    They look for one file then, and need not read the notes of all others.

    Args:
        job: Sweep.
        here: See ``environment.describe``.
    """
    path, content = _passed(job, environment.decisive(here))
    publish.publish(path, content, job.storage.disk, replace=False)


def _passed(job: Job, ours: Mapping[str, Any]) -> tuple[Path, bytes]:
    """The file which says that an environment may add to a run, and what it holds."""
    content = config.canonical({"environment": ours, "spec_hash": job.spec_hash})
    name = f"{hashlib.sha256(content).hexdigest()[:16]}{layout.PASSED}"
    return contained.contained(job.out, layout.ENVIRONMENT, name), content


def _is_known(job: Job, ours: Mapping[str, Any]) -> bool:
    """Whether all of the run comes from environments like this one, or this one has passed."""
    if contained.holds(*_passed(job, ours)):
        return True
    notes = worker_notes.read(job.out)
    alike = [environment.decisive(note.get("environment", {})) == ours for note in notes]
    passed = [is_ours and _has_passed(note) for is_ours, note in zip(alike, notes, strict=True)]
    return bool(notes) and (all(alike) or any(passed))


def _has_passed(note: Mapping[str, Any]) -> bool:
    measured = note.get("measured")
    return isinstance(measured, dict) and isinstance(measured.get("canary"), dict)
