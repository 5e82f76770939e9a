"""What workers noted of how a run was made: versions, devices, times."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.store import layout


def read(run_dir: str | Path, checked: bool = True) -> list[dict[str, Any]]:
    """What workers of a run have noted; whatever is damaged is left out.

    Args:
        run_dir: Run.
        checked: See ``layout.read_note``.
    """
    documents = []
    for name in layout.note_names(run_dir):
        with contextlib.suppress(errors.JaxlensError):
            documents.append(layout.read_note(run_dir, name, checked))
    return documents
