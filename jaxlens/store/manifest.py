"""``MANIFEST``: the records of all shards of a run, in one file."""

from __future__ import annotations

import os
from pathlib import Path

from jaxlens.files import contained
from jaxlens.store import layout, record_table


def read(run_dir: str | Path, n_shards: int) -> record_table.RecordTable:
    """Reads ``MANIFEST``.

    Args:
        run_dir: Run.
        n_shards: Number of shards, which bounds what is read.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    path = contained.contained(run_dir, layout.MANIFEST)
    limit = max(layout.LARGE, (n_shards + 1) * layout.LINE)
    return record_table.parse_manifest(contained.read(path, limit), str(path))


def lists_exactly(run_dir: str | Path, entries: record_table.RecordTable) -> bool:
    """Whether ``MANIFEST`` lists exactly these records; compared in pieces.

    Raises:
        MissingError: It does not exist.
        StorageError: The system refused to read.
    """
    path = contained.contained(run_dir, layout.MANIFEST)
    with contained.opened(path) as descriptor, contained.reading(path):
        for piece in entries.manifest_pieces():
            if os.read(descriptor, len(piece)) != piece:
                return False
        return not os.read(descriptor, 1)
