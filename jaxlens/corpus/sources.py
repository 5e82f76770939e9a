"""From names of files, folders and patterns to the files that are read, in a fixed order."""

from __future__ import annotations

import collections
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlens import errors
from jaxlens.corpus import archives

PACKAGED = "packaged"
"""Name of the corpus that needs no file: the prose of Python's own help."""

SUFFIXES = (
    *(kind + packing for kind in (".txt", ".jsonl", ".ndjson") for packing in archives.SUFFIXES),
    ".parquet",
)
"""File names that are read, by their end, in any case."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        number: Among all that are read, from 0.
        name: What ids and messages call it: relative to the folder or pattern that was given,
            so that it stays when the folder moves.
        path: Where it lies; None for the packaged text.
    """

    number: int
    name: str
    path: str | None


def find(paths: Iterable[str | Path]) -> list[Source]:
    """Everything behind the given names, each file once.

    Raises:
        MissingError: A name matches nothing.
        DataError: A named file has an unsupported suffix, or a file is no regular file.
        StorageError: The system refuses to list or inspect.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    seen: set[str] = set()
    names: collections.Counter[str] = collections.Counter()
    found = []
    for name, path in (match for entry in given for match in _matches(os.fspath(entry))):
        key = PACKAGED if path is None else os.path.abspath(path)
        if key in seen:
            continue
        seen.add(key)
        names[name] += 1
        # Two files of one name in different folders must not share their ids.
        suffix = f"~{names[name]}" if names[name] > 1 else ""
        found.append(Source(len(found), name + suffix, path))
    return found


def _matches(given: str) -> Iterator[tuple[str, str | None]]:
    """Pairs of name and path."""
    if given == PACKAGED:
        yield "pydoc", None
        return
    path = os.path.expanduser(given) if _is_possible(given) else ""
    if os.path.isdir(path):
        found = _walk(path, path)
    elif os.path.lexists(path):
        found = [_named(path)]
    else:
        found = _globbed(path)
    if not found:
        raise errors.MissingError(
            f"no text at {given}", f"name a file, folder or pattern of {', '.join(SUFFIXES)}"
        )
    yield from found


def _is_possible(name: str) -> bool:
    """Whether the system can have a file of this name; some of its calls raise where not."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _named(path: str) -> tuple[str, str]:
    _check_regular(path)
    if not path.lower().endswith(SUFFIXES):
        raise errors.DataError(
            f"{path} is in no supported format", f"supported: {', '.join(SUFFIXES)}"
        )
    return _portable(os.path.basename(path)), path


def _globbed(pattern: str) -> list[tuple[str, str]]:
    if not glob.has_magic(pattern):
        return []
    root = os.path.dirname(pattern)
    while glob.has_magic(root):
        root = os.path.dirname(root)
    root = root or os.curdir
    found: list[tuple[str, str]] = []
    for hit in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(hit):
            found += _walk(hit, root)
        elif hit.lower().endswith(SUFFIXES):
            found.append(_checked(hit, root))
    return found


def _walk(folder: str, root: str) -> list[tuple[str, str]]:
    """Supported files under a folder, sorted by relative name; links are followed."""

    def refuse(error: OSError) -> None:
        raise archives.refused(str(error.filename), error) from error

    found: list[tuple[str, str]] = []
    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        if real in entered:  # a link that leads back would never end
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (name for name in files if not name.startswith("."))
        wanted = (name for name in shown if name.lower().endswith(SUFFIXES))
        found += [_checked(os.path.join(parent, name), root) for name in wanted]
    return sorted(found)


def _checked(path: str, root: str) -> tuple[str, str]:
    _check_regular(path)
    return _portable(os.path.relpath(path, root).replace(os.sep, "/")), path


def _portable(name: str) -> str:
    """A file name as text that UTF-8 can hold."""
    return os.fsencode(name).decode("utf-8", "replace")


def _check_regular(path: str) -> None:
    with archives.refusals(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        # Reading a pipe would block, and a run could not be resumed from it.
        raise errors.DataError(f"{path} is not a regular file", "save the text to a file first")
