"""Committing a shard: exactly one of each, whoever else is at work on the run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jaxlens import errors
from jaxlens.store import access, layout, publish, records, shards, system


def publish_shard(
    run_dir: str | Path,
    place: records.Place,
    image: memoryview,
    rows: int,
    disk: system.Disk = system.DISK,
) -> records.Record | None:
    """Commits a shard: the sidecar first, then the image, whose name is the commit.

    Where a rival has committed the shard meanwhile, it stands, and nothing is written; what is
    there but damaged gives way. Rivals on like machines compute equal bits, so it matters to
    nobody which of them was first.

    Args:
        run_dir: Run, begun with `layout.create_run`.
        place: Where the shard belongs; the same that is in the image.
        image: Of `image.shard_image`.
        rows: Rows in the image; 0 where it holds only tallies.
        disk: System calls.

    Returns:
        The record of a rival's shard that stands although its bits are others; else None.

    Raises:
        StorageError: The disk is full or failed.
    """
    entry = records.record(place, rows, image)
    with contextlib.suppress(errors.MissingError, errors.DataError):
        standing = shards.check(run_dir, place.shard, place.spec_hash)
        return None if standing == entry else standing
    path = layout.shard_path(run_dir, place.shard)
    publish.publish(layout.sidecar_path(run_dir, place.shard), records.encode(entry), disk)
    if not publish.publish(path, image, disk, replace=False) and not _holds(path, entry):
        publish.publish(path, image, disk)
    return None


def discard(run_dir: str | Path, shard: int, disk: system.Disk = system.DISK) -> None:
    """Removes a shard that is to be computed again, its record last.

    Raises:
        StorageError: The disk failed.
    """
    publish.remove(layout.shard_path(run_dir, shard), disk)
    publish.remove(layout.sidecar_path(run_dir, shard), disk)


def _holds(path: Path, entry: records.Record) -> bool:
    """Whether a file is what a record says."""
    with contextlib.suppress(errors.MissingError, errors.DataError), access.opened(path) as found:
        same_size = os.fstat(found).st_size == entry.size
        return same_size and access.sha256(path, found) == entry.sha256
    return False
