"""Building the files of segments beside a sweep, by whoever completes one."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxlens import errors
from jaxlens.files import closing, system
from jaxlens.store import fold, layout, segment_files, segments

logger = logging.getLogger("jaxlens")


class SegmentBuilder(closing.Closing):
    """Derives the files of segments in a thread of its own; also a context manager.

    What is not built, because a shard was damaged or the sweep was stopped, is left to
    `finalize.finalize`.

    Args:
        run_dir: Run.
        spec: Its spec.
        disk: System calls.
    """

    def __init__(
        self, run_dir: str | Path, spec: layout.Spec, disk: system.Disk = system.DISK
    ) -> None:
        self._run_dir, self._spec, self._disk = run_dir, spec, disk
        self._begun: set[int] = set()
        self._cancelled = threading.Event()
        self._pool = ThreadPoolExecutor(1, "jaxlens-segments")

    def committed(self, shard: int) -> None:
        """Builds the segment of a shard if this was the last of its shards.

        Raises:
            StorageError: The system refused to list it.
        """
        segment, n_shards = layout.segment_of(shard), self._spec.n_shards
        if (
            segments.has_files(n_shards)
            and segment not in self._begun
            and segments.is_complete(self._run_dir, segment, n_shards)
        ):
            self._begun.add(segment)
            self._pool.submit(self._build, segment)

    def cancel(self) -> None:
        """Gives up what is being built, after the shard that is being read."""
        self._cancelled.set()

    def close(self) -> None:
        """Waits for what is being built."""
        self._pool.shutdown(wait=True)

    def _build(self, segment: int) -> None:
        path = layout.segment_path(self._run_dir, segment, layout.MANIFEST)
        if os.path.lexists(path) or self._cancelled.is_set():
            return
        try:
            segment_files.publish_complete(
                self._run_dir, self._spec, segment, self._disk, self._cancelled.is_set
            )
        except fold.Cancelled:
            pass
        except errors.JaxlensError as error:
            logger.warning("segment %d is left to the end of the run: %s", segment, error)
