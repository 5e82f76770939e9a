"""Opening a model's files as untrusted data: regular files only, of bounded size.

Links are followed wherever they lead, since the hub's cache is made of them. Names that stand in a
file are another matter: an index can name files of its own directory only.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import stat
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from jaxlens import errors
from jaxlens.files import file_types, refusals

# The index of a thousand layers has 1.3 MB. Python's objects take up to 26 times the text, so
# that even a file made to harm stays below 50 MiB.
MAX_JSON_BYTES = 3 * 2**19
"""Bytes of the largest JSON file that is read."""


READABLE = "check the permissions and the disk, or copy the model elsewhere"

_CACHED = "models--"
"""How the folders of the hub's cache begin."""

MAX_ENTRIES = 10_000
"""How many entries of a directory are looked at."""


def is_there(path: Path) -> bool:
    """Whether a directory has an entry, of whatever kind; a link to nothing is one too.

    Raises:
        OSError: The system does not say.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def opened(path: Path, where: str, magic: bytes = b"") -> Generator[BinaryIO]:
    """A regular file, opened without waiting for anybody, as a pipe would.

    Args:
        path: The file.
        where: What to call it.
        magic: First bytes that are known to be what the name says; none by default.

    Raises:
        MissingError: It does not exist.
        DataError: It is a folder, a pipe or a device, or holds something else than its name says
            (a Git LFS pointer, a web page).
        StorageError: The system refused, also while reading.
    """
    with refusals.reading(where, READABLE):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise missing(path, where) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise errors.DataError(f"{where}: not a regular file", "fetch the model again")
            with open(descriptor, "rb", closefd=False) as file:
                head = file.peek(file_types.HEAD_BYTES)
                if not (magic and head.startswith(magic)):
                    file_types.refuse_stand_in(head, where)
                yield file
        finally:
            os.close(descriptor)


def missing(path: Path, where: str) -> errors.MissingError:
    """The error for a file that is not there, or a link to one, such as the hub's cache is made of.

    Args:
        path: The file.
        where: What to call it.
    """
    if not path.is_symlink():
        hint = f"copy {path.name} there from where the other files of the model come from"
        return errors.MissingError(f"{where}: no such file", hint)
    repository = next((part for part in path.absolute().parts if part.startswith(_CACHED)), "")
    name = "/".join(repository.split("--")[1:])
    cache = str(path.absolute()).partition(f"/{repository}/")[0]
    return errors.MissingError(
        f"{where}: a link to {shown(os.readlink(path))}, which is not there",
        f"fetch the model again: {shlex.join(['hf', 'download', name, '--cache-dir', cache])}"
        if name
        else "fetch the model again, or copy the file that the link is to lead to",
    )


def names(directory: Path) -> list[str]:
    """Sorted names of a directory's entries, at most ``MAX_ENTRIES`` of them.

    Raises:
        OSError: The system refused.
    """
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in itertools.islice(entries, MAX_ENTRIES))


def read_json(path: Path, label: str) -> Any:
    """A JSON file, in which a key that is there twice is an error.

    Raises:
        MissingError: The file does not exist.
        DataError: It is not a regular file, too large or not JSON.
        StorageError: The system refused.
    """
    where = f"{label}/{path.name}"
    with opened(path, where) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise errors.DataError(
            f"{where}: more than {MAX_JSON_BYTES} bytes, too large to be what its name says",
            "fetch the model again",
        )
    try:
        return json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise errors.DataError(
            f"{where}: not valid JSON ({line(error)})",
            "correct it at that place, or fetch the file again",
        ) from error


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of a JSON object or a msgpack map.

    Raises:
        ValueError: A key is there twice; one of the two would be lost without a word.
    """
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"{key[:200]!r} is there twice")
        mapping[key] = value
    return mapping


def shown(name: str) -> str:
    """A name out of a file as part of a message: short, on one line, without control characters."""
    short = name[:200]
    return short if short.isprintable() else ascii(short)


def listed(names: Iterable[str], most: int = 5) -> str:
    """Some names for a message, and how many more there are."""
    everything = list(names)
    more = f" and {len(everything) - most} more" if len(everything) > most else ""
    return ", ".join(map(shown, everything[:most])) + more


def line(error: BaseException) -> str:
    """The first line of a library's message."""
    return shown(str(error).strip().split("\n")[0]) or type(error).__name__
