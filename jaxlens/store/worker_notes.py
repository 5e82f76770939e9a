"""What workers noted of how a run was made: versions, devices, times."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.store import findings, layout


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


def check(problems: findings.Findings) -> None:
    """Checks the notes, which cannot be made again; no result depends on them.

    Args:
        problems: Of the run, to which damaged notes are added.
    """
    names: list[str] = []
    with problems.checking(layout.ENVIRONMENT):
        names = layout.note_names(problems.run_dir)
    for name in names:
        try:
            layout.read_note(problems.run_dir, name)
        except errors.JaxlensError as error:
            reason = error.message.partition(" is ")[2] or error.message
            problem = f"is {reason}; a note, no result depends on it: remove it"
            problems.add(f"{layout.ENVIRONMENT}/{name}", problem)
