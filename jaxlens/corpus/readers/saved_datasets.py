"""Folders that ``datasets.save_to_disk`` wrote: which files in them are the data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from jaxlens import errors
from jaxlens.files import compression, refusals

STATE = "state.json"
SPLITS = "dataset_dict.json"
_INFO = "dataset_info.json"
FILES = frozenset({STATE, SPLITS, _INFO})
"""What describes a data set beside its rows."""

_MAX_BYTES = 2**22


def data_files(folder: str, names: Sequence[str]) -> set[str] | None:
    """The files of a data set in a folder; None where it holds none.

    Args:
        folder: To look in.
        names: What it holds.

    Raises:
        MissingError: A file of the data set is not there.
        DataError: Its description is damaged, or its rows are in an order of their own.
    """
    if STATE not in names or _INFO not in names:
        return None
    path = os.path.join(folder, STATE)
    state = _read(path)
    if not isinstance(state, dict) or not isinstance(listed := state.get("_data_files"), list):
        return None
    file_names = [entry.get("filename") for entry in listed if isinstance(entry, dict)]
    files = {name for name in file_names if isinstance(name, str)}
    if len(files) != len(listed):
        raise compression.damaged(path, "its list of files makes no sense")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise errors.DataError(
            f"{folder} is a selection from another order of its rows",
            "flatten it: dataset.flatten_indices().save_to_disk(...)",
        )
    for name in sorted(files - set(names)):
        raise errors.MissingError(
            f"{folder} lacks {name!r:.200}, which {STATE} lists", "copy the folder again"
        )
    return files


def refuse_several(folder: str) -> None:
    """Refuses a folder of several splits, which are seldom meant to be one corpus.

    Raises:
        DataError: Naming them.
    """
    path = os.path.join(folder, SPLITS)
    document = _read(path)
    splits = document.get("splits") if isinstance(document, dict) else None
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise compression.damaged(path, "its list of splits makes no sense")
    if len(splits) > 1:
        named = " ".join(os.path.join(folder, name) for name in splits)[:500]
        raise errors.DataError(
            f"{folder} holds {len(splits)} splits: {', '.join(splits)[:200]}",
            f"name one or more of them: --corpus {named}",
        )


def _read(path: str) -> Any:
    with refusals.reading(path), open(path, "rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise compression.damaged(path, str(error)) from error
