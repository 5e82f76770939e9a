"""Committing a shard exactly once, even with concurrent writers."""

from __future__ import annotations

import concurrent.futures
import contextlib
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained, publish, system
from jaxlens.store import layout, records, segments, shards

TRIES = 16
"""Attempts to commit a shard that concurrent writers with other bits keep replacing."""


def publish_shard(
    run_dir: str | Path,
    shard_range: records.ShardRange,
    image: memoryview,
    rows: int,
    disk: system.Disk = system.DISK,
) -> records.Record | None:
    """Commits a shard: the sidecar first, then the image, whose name is the commit.

    A sound shard that a concurrent writer committed first stays, and nothing is written; a damaged
    one is replaced. Writers on like machines compute equal bits, so their order does not matter.
    Where bits differ, the sidecar of one writer may meet the image of another; hence each writer
    returns only after it has seen that the two fit after its own last change, so that they fit when
    all writers have returned.

    Args:
        run_dir: Run, from `run_directory.create_run`.
        shard_range: Range of the shard, the one in the image.
        image: Of `images.shard_image`.
        rows: Rows in the image; 0 where it holds only tallies.
        disk: System calls.

    Returns:
        The record of a concurrent writer's shard that stays although its bits differ; else None.

    Raises:
        StorageError: The disk is full or failed, or does not keep what is written.
    """
    folder = contained.contained(
        run_dir, *layout.segment_parts(layout.segment_of(shard_range.shard))
    )
    publish.make_directory(folder, disk)
    segments.open_folder(run_dir, layout.segment_of(shard_range.shard)).close()  # not a link
    path, sidecar = (
        act(run_dir, shard_range.shard) for act in (layout.shard_path, layout.sidecar_path)
    )
    # The image is hashed while the disk is busy writing it.
    with concurrent.futures.ThreadPoolExecutor(1, "jaxlens-hash") as pool:
        entry = pool.submit(records.record, shard_range, rows, image)

        def record() -> None:
            segments.forget_other(run_dir, entry.result(), disk)
            publish.publish(sidecar, records.encode(entry.result()), disk)

        occupied = False
        for _ in range(TRIES):
            with contextlib.suppress(errors.MissingError, errors.DataError):
                standing = shards.check(run_dir, shard_range.shard, shard_range.spec_hash)
                return None if standing == entry.result() else standing
            occupied = not publish.publish(path, image, disk, replace=occupied, before=record)
            segments.forget_other(run_dir, entry.result(), disk)
            if not occupied and _is_recorded(run_dir, entry.result()):
                return None
    raise errors.StorageError(
        f"{path} does not stay as it was written: {TRIES} times it did not fit its record",
        "check the disk, and for writers whose results differ; then run the same command again",
    )


def discard(run_dir: str | Path, shard: int, disk: system.Disk = system.DISK) -> None:
    """Removes a shard that must be computed again, its record last.

    Raises:
        StorageError: The disk failed.
    """
    segment = layout.segment_of(shard)
    publish.remove(layout.segment_path(run_dir, segment, layout.MANIFEST), disk)
    publish.remove(layout.shard_path(run_dir, shard), disk)
    publish.remove(layout.sidecar_path(run_dir, shard), disk)


def _is_recorded(run_dir: str | Path, entry: records.Record) -> bool:
    """Whether the sidecar of a shard is still this one."""
    with contextlib.suppress(errors.MissingError, errors.DataError):
        return layout.read_record(run_dir, entry.shard) == entry
    return False
