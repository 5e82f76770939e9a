"""Runs of earlier versions, whose shards all lie in one directory."""

from __future__ import annotations

import contextlib
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained, move, system
from jaxlens.store import layout, segments


def move_shards(run_dir: str | Path, n_shards: int, disk: system.Disk = system.DISK) -> int:
    """Moves shards that an earlier version wrote, all in one directory, to where they belong.

    Each file is renamed, its record first; doing it again goes on where it was interrupted.

    Returns:
        How many files were moved.

    Raises:
        StorageError: The disk failed.
    """
    moves = {}
    for name in _strays(run_dir, n_shards):
        parts = layout.segment_parts(layout.segment_of(layout.part_number(name) or 0))
        source = contained.contained(run_dir, layout.SHARDS, name)
        moves[source] = contained.contained(run_dir, *parts, name)
    move.move_all(moves, disk)
    return len(moves)


def require_moved(run_dir: str | Path, n_shards: int) -> None:
    """Refuses a run whose shards lie where an earlier version put them.

    Raises:
        DataError: Naming one of them.
    """
    if strays := _strays(run_dir, n_shards):
        raise errors.DataError(
            f"{run_dir}: {layout.SHARDS}/{strays[-1]} lies where an earlier version put it",
            f"move it and the others to where they belong: jaxlens finalize {run_dir}",
        )


def _strays(run_dir: str | Path, n_shards: int) -> list[str]:
    """Files of later segments in the directory of the first; a record before its shard."""
    with (
        contextlib.suppress(errors.MissingError, errors.DataError),  # for others to name
        segments.open_folder(run_dir, 0) as opened,
    ):
        numbered = [(layout.part_number(name), name) for name in opened.names()]
        first = layout.SHARDS_PER_SEGMENT
        later = [(n, name) for n, name in numbered if n is not None and first <= n < n_shards]
        return [
            name for _, name in sorted(later, key=lambda item: (item[0], item[1]), reverse=True)
        ]
    return []
