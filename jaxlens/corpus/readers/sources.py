"""From names of files, folders and patterns to the files that are read, in a fixed order."""

from __future__ import annotations

import collections
import glob
import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxlens import arguments, errors
from jaxlens.corpus.readers import formats, items, saved_datasets
from jaxlens.files import refusals

PACKAGED = "packaged"
"""Name of the corpus that needs no file: the prose of Python's own help."""

Source = items.Source


_KINDS_SHOWN = 8
_KIND_CHARACTERS = 20
_ONE = {
    "hidden files": "hidden file",
    "files without a suffix": "file without a suffix",
    "links that lead nowhere": "link that leads nowhere",
}


@dataclass
class Survey:
    """What lies behind given names.

    Attributes:
        sources: Files to read, in order.
        passed: Files in folders and patterns that are not read, by what they are.
        links: Files that are read through a symbolic link.
    """

    sources: list[Source] = field(default_factory=list)
    passed: collections.Counter[str] = field(default_factory=collections.Counter)
    links: int = 0

    def report(self) -> Iterator[str]:
        """What a user should know of it, a line each."""
        if self.passed:
            yield f"passed over in folders: {_count(self.passed)}; name a file to read it"
        if self.links:
            yield f"files read through symbolic links: {self.links}"


def find(paths: Iterable[str | Path]) -> list[Source]:
    """Everything behind the given names, each file once.

    Raises:
        MissingError: A name matches nothing.
        DataError: A named file has an unsupported suffix, or a file is not a regular file.
        StorageError: The system refused to list or inspect.
    """
    return survey(paths).sources


def survey(paths: Iterable[str | Path]) -> Survey:
    """The same as ``find``, with what was passed over."""
    entries = [paths] if isinstance(paths, (str, Path)) else list(paths)
    seen: set[str] = set()
    names: collections.Counter[str] = collections.Counter()
    result = Survey()
    for name, path in (match for entry in entries for match in _matches(os.fspath(entry), result)):
        key = PACKAGED if path is None else os.path.abspath(path)
        if key in seen:
            continue
        seen.add(key)
        names[name] += 1
        # Two files of one name in different folders must not share their ids.
        suffix = f"~{names[name]}" if names[name] > 1 else ""
        result.sources.append(Source(len(result.sources), name + suffix, path))
    return result


def _matches(name: str, survey: Survey) -> Iterator[tuple[str, str | None]]:
    """Pairs of name and path."""
    if name == PACKAGED:
        yield "pydoc", None
        return
    path = os.path.expanduser(name) if arguments.is_possible(name) else ""
    if os.path.isdir(path):
        files = _lowest_rank(_walk(path, path), survey)
    elif os.path.lexists(path):
        files = [_named(path)]
    else:
        files = _lowest_rank(_globbed(path), survey)
    if not files:
        holds = f", but {_count(survey.passed)}" if survey.passed else ""
        raise errors.MissingError(
            f"no text at {name}{holds}", f"name a file, folder or pattern of {formats.supported()}"
        )
    yield from files


def _named(path: str) -> tuple[str, str]:
    _check_regular(path)
    if formats.of_name(path) is None:
        raise errors.DataError(
            f"{path} is in no supported format", f"supported: {formats.supported()}"
        )
    return _portable(os.path.basename(path)), path


@dataclass
class _Candidates:
    """What folders and patterns hold.

    Attributes:
        files: Name, path, and whether a link leads there.
        passed: See ``Survey``.
        split: Folders of several data sets, see ``saved``.
    """

    files: list[tuple[str, str, bool]] = field(default_factory=list)
    passed: collections.Counter[str] = field(default_factory=collections.Counter)
    split: list[str] = field(default_factory=list)


def _lowest_rank(candidates: _Candidates, survey: Survey) -> list[tuple[str, str]]:
    """The files of the lowest rank; see ``formats.Format``."""
    lowest = min((_rank(path) for _, path, _ in candidates.files), default=0)
    files = []
    for name, path, linked in candidates.files:
        if _rank(path) == lowest:
            _check_regular(path)
            files.append((name, path))
            survey.links += linked
        else:
            _pass_over(candidates, path)
    if any(path.lower().endswith(".arrow") for _, path in files):
        for folder in candidates.split:
            saved_datasets.refuse_several(folder)
    survey.passed += candidates.passed
    return files


def _rank(name: str) -> float:
    kind = formats.of_name(name)
    return math.inf if kind is None else kind.rank


def _globbed(pattern: str) -> _Candidates:
    candidates = _Candidates()
    if not glob.has_magic(pattern):
        return candidates
    root = os.path.dirname(pattern)
    while glob.has_magic(root):
        root = os.path.dirname(root)
    root = root or os.curdir
    for hit in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(hit):
            inner = _walk(hit, root)
            candidates.files += inner.files
            candidates.split += inner.split
            candidates.passed += inner.passed
        else:
            _add(candidates, hit, root, linked=False)
    return candidates


def _walk(folder: str, root: str) -> _Candidates:
    """Files under a folder, sorted by relative name; links are followed."""

    def refuse(error: OSError) -> None:
        raise refusals.read_error(str(error.filename), error) from error

    candidates = _Candidates()
    base = os.path.realpath(folder)
    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        if real in entered:  # a link that leads back would never end
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        listed = saved_datasets.data_files(parent, files)
        if saved_datasets.SPLITS in files:
            candidates.split.append(parent)
        linked = os.path.commonpath([base, real]) != base
        for name in files:
            if name.startswith("."):
                candidates.passed["hidden files"] += 1
            elif listed is not None and name not in listed and _rank(name):
                _pass_over(candidates, name)
            else:
                path = os.path.join(parent, name)
                # What a data set lists must be there; the rest of a folder may be any files.
                _add(candidates, path, root, linked, needed=listed is not None and name in listed)
    candidates.files.sort()
    return candidates


def _pass_over(candidates: _Candidates, path: str) -> None:
    """Counts a file that is not read; what describes a data set is part of it."""
    if os.path.basename(path) not in saved_datasets.FILES:
        candidates.passed[formats.suffix(path)] += 1


def _add(
    candidates: _Candidates, path: str, root: str, linked: bool, *, needed: bool = False
) -> None:
    """Adds a file that is of a supported kind, or counts it."""
    if not needed and os.path.islink(path) and not os.path.exists(path):
        candidates.passed["links that lead nowhere"] += 1
    elif formats.suffix(path):
        name = _portable(os.path.relpath(path, root).replace(os.sep, "/"))
        candidates.files.append((name, path, linked or os.path.islink(path)))
    else:
        end = _portable(os.path.splitext(path)[1].lower())
        candidates.passed[end if end.isprintable() and end else "files without a suffix"] += 1


def _count(passed: collections.Counter[str]) -> str:
    """``3 .md, 2 hidden files``, the most frequent first."""
    shown = sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))[:_KINDS_SHOWN]
    more = passed.total() - sum(count for _, count in shown)
    words = [
        errors.count(count, _ONE[what], what)
        if what in _ONE
        else f"{count:,} {what[:_KIND_CHARACTERS]}"
        for what, count in shown
    ]
    return ", ".join([*words, *([errors.count(more, "other")] if more else [])])


def _portable(name: str) -> str:
    """A file name as text that UTF-8 can hold."""
    return os.fsencode(name).decode("utf-8", "replace")


def _check_regular(path: str) -> None:
    with refusals.reading(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        # Reading a pipe would block, and a run could not be resumed from it.
        raise errors.DataError(f"{path} is not a regular file", "save the text to a file first")
