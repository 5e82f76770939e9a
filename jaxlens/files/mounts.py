"""Buckets of object stores that are mounted as folders, which cannot hold a run.

Such a mount has no atomic renaming or hard links, and its fsync does not make a file durable.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from jaxlens import errors

TABLE = Path("/proc/self/mounts")
"""What is mounted: source, directory, type, options; other systems have no such file."""

PROGRAMS = frozenset(
    {"blobfuse", "blobfuse2", "gcsfuse", "geesefs", "goofys", "mount-s3", "mountpoint-s3"}
    | {"ossfs", "rclone", "s3fs"}
)
"""Programs that mount buckets, as the table names them: after ``fuse.``, or as the source."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def refuse_bucket(folder: str | Path) -> None:
    """Refuses a folder in a mounted bucket; it need not exist yet.

    Raises:
        ConfigError: Naming the program that mounts it.
    """
    if (program := program_of(folder)) is not None:
        raise errors.ConfigError(
            f"{folder} is in a bucket that {program} mounts, which does not keep what is renamed",
            "write to the bucket itself: --out s3://BUCKET/FOLDER or gs://BUCKET/FOLDER",
        )


def program_of(folder: str | Path) -> str | None:
    """The program that mounts a bucket where a folder is, or would be; None for others."""
    with contextlib.suppress(OSError):
        lines = TABLE.read_text(errors="replace").splitlines()
        return _program(os.path.realpath(folder), [line.split(" ") for line in lines])
    return None


def _program(path: str, table: list[list[str]]) -> str | None:
    deepest, found = "", None
    for source, directory, kind, *_ in (line for line in table if len(line) >= 3):
        mounted = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), directory)
        inside = path == mounted or path.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(deepest):  # of two in one place the later one counts
            deepest, found = mounted, _bucket_program(source, kind)
    return found


def _bucket_program(source: str, kind: str) -> str | None:
    family, _, subtype = kind.partition(".")
    if family != "fuse":
        return None
    return next((name for name in (subtype, source) if name in PROGRAMS), None)
