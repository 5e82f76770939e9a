"""The spec of what is computed beside a sweep: fixed where it begins, never replaced by another."""

from __future__ import annotations

import os
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import layout, spec_difference, strict_json


def start_anew(folder: Path) -> str:
    """The hint for a damaged spec: what is there cannot be told from something else."""
    return f"remove {folder}, then run the same command again: it begins anew"


def make_again(path: Path, command: str) -> str:
    """The hint for a damaged result.

    Args:
        path: File.
        command: That makes it, with its run.
    """
    return f"remove {path}, then run the same {command} again: it makes it again"


def require_same(path: Path, spec_bytes: bytes, what: str) -> None:
    """Refuses a folder in which another one has begun; writes nothing.

    Args:
        path: File that holds the spec.
        spec_bytes: Canonical JSON of what is asked for.
        what: Noun, for the message.

    Raises:
        ConfigError: Naming what differs.
        DataError: The spec that is there is damaged.
    """
    if not os.path.lexists(path):
        return
    with errors.hinted(start_anew(path.parent)):
        there = contained.read(path, layout.LARGE)
        if there == spec_bytes:
            return
        old, new = (strict_json.parse(raw, str(path)) for raw in (there, spec_bytes))
    difference, _ = spec_difference.describe(old, new)
    raise errors.ConfigError(
        f"{path} is of another {what}: {difference}",
        f"give the options that it began with, or remove {path.parent} to begin anew",
    )
