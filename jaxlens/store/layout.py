"""Where the files of a run lie, and how the small ones are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import config, errors, schema
from jaxlens.files import contained
from jaxlens.store import records, strict_json

RUN = "RUN.json"
MANIFEST = "MANIFEST"
SUMMARY = "summary.h5"
INDEX = "index.h5"
DERIVED = (SUMMARY, INDEX, MANIFEST)
"""Files that follow from the shards and end a run, in the order in which they are written."""

TYPE_MEANS = "type_means.h5"
"""Means of token types that a run subtracts, where its spec names them."""

TOKEN_COUNTS = "token_counts.h5"
"""Counts by which rarity is defined, where a run's spec names them."""

SHARDS = "shards"
ENVIRONMENT = "environment"
PASSED = ".passed"
"""Ending of the files in ``environment`` which say that an environment may add to the run."""

TOKENS = "tokens"
TOKEN_FILE = "tokens.bin"
TOKEN_INDEX = "index.h5"
TOKEN_RECORD = "TOKENS.json"

SMALL = 1 << 16
"""Most bytes that a sidecar can have."""

LARGE = 1 << 22
"""Most bytes that ``RUN.json`` and ``TOKENS.json`` can have."""

NOTE = 1 << 20
"""Most bytes that a note in ``environment`` can have."""

LINE = 1 << 10
"""Most bytes that a line of ``MANIFEST`` can have."""

SHARDS_PER_SEGMENT = 1024
"""Consecutive shards that share a directory: a segment. The first lies in ``shards`` itself, so
that small runs need no other; those that follow in ``shards/00001``, ``shards/00002``, ..."""

_PART = re.compile(r"part-(\d{5,9})\.(h5|json)")
_SEGMENT = re.compile(r"\d{5,6}")


@dataclass(frozen=True)
class Spec:
    """What a run computes.

    Attributes:
        document: Parsed ``RUN.json``.
        hash: The sha256 of its bytes.
        n_shards: Number of shards of its plan.
    """

    document: dict[str, Any]
    hash: str
    n_shards: int


def shard_name(shard: int) -> str:
    """``part-00017.h5``."""
    return f"part-{shard:05d}.h5"


def sidecar_name(shard: int) -> str:
    """``part-00017.json``."""
    return f"part-{shard:05d}.json"


def segment_of(shard: int) -> int:
    """The segment of a shard."""
    return shard // SHARDS_PER_SEGMENT


def segment_parts(segment: int) -> tuple[str, ...]:
    """Names of the directories, from the run down, in which the shards of a segment lie."""
    return (SHARDS,) if segment == 0 else (SHARDS, f"{segment:05d}")


def shards_of(segment: int, n_shards: int) -> range:
    """The shards of a segment of a plan."""
    first = segment * SHARDS_PER_SEGMENT
    return range(first, min(first + SHARDS_PER_SEGMENT, n_shards))


def shard_file(shard: int) -> str:
    """``shards/part-00017.h5``, ``shards/00001/part-01024.h5``: relative to the run."""
    return "/".join((*segment_parts(segment_of(shard)), shard_name(shard)))


def sidecar_file(shard: int) -> str:
    """``shards/part-00017.json``: relative to the run."""
    return "/".join((*segment_parts(segment_of(shard)), sidecar_name(shard)))


def shard_path(run_dir: str | Path, shard: int) -> Path:
    """The rows and tallies of a shard."""
    return contained.contained(run_dir, *shard_file(shard).split("/"))


def sidecar_path(run_dir: str | Path, shard: int) -> Path:
    """The record of a shard."""
    return contained.contained(run_dir, *sidecar_file(shard).split("/"))


def segment_path(run_dir: str | Path, segment: int, name: str) -> Path:
    """``MANIFEST`` or ``summary.h5`` of the shards of a segment."""
    return contained.contained(run_dir, *segment_parts(segment), name)


def token_path(run_dir: str | Path, name: str = TOKEN_FILE) -> Path:
    """The token file, its index or its record."""
    return contained.contained(run_dir, TOKENS, name)


def environment_path(run_dir: str | Path, worker: str) -> Path:
    """The note of a worker about what does not decide results: versions, devices, times.

    Raises:
        ConfigError: The name of the worker is not a file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", worker):
        raise errors.ConfigError(f"{worker!r} is not a name for a worker", "use letters and digits")
    return contained.contained(run_dir, ENVIRONMENT, f"{worker}.json")


def part_number(name: str) -> int | None:
    """The shard of a file name in ``shards/``; None for other files."""
    match = _PART.fullmatch(name)
    if match is None or name not in (shard_name(int(match[1])), sidecar_name(int(match[1]))):
        return None
    return int(match[1])


def segment_number(name: str) -> int | None:
    """The segment of a directory name in ``shards/``; None for other names."""
    if _SEGMENT.fullmatch(name) and name == f"{int(name):05d}" and int(name):
        return int(name)
    return None


def read_spec(run_dir: str | Path) -> Spec:
    """Reads ``RUN.json``.

    Raises:
        MissingError: The directory holds no run.
        DataError: It is damaged.
    """
    path = contained.contained(run_dir, RUN)
    try:
        raw = contained.read(path, LARGE)
    except errors.MissingError as error:
        raise errors.MissingError(
            f"{run_dir} holds no run: {RUN} is missing", "check the path"
        ) from error
    with errors.hinted(
        "jaxlens repair restores it; in an object store remove it, and run jaxlens run again"
    ):
        document, n_shards = records.parse_spec(raw, str(path))
    return Spec(document, config.spec_hash(raw), n_shards)


def format_version(spec: Spec) -> int:
    """Version of the shards and derived files of a run.

    Raises:
        DataError: It is unknown here.
    """
    version = spec.document.get("format_version", schema.FORMAT_VERSION)
    if type(version) is not int or version not in schema.FORMATS:
        raise errors.DataError(
            f"format {version!r:.20} is unknown here", "use the version of jaxlens that made it"
        )
    return version


def read_record(run_dir: str | Path, shard: int) -> records.Record:
    """Reads the sidecar of a shard, whichever run and shard it names.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    path = sidecar_path(run_dir, shard)
    return records.parse_record(contained.read(path, SMALL), str(path))


def note_names(run_dir: str | Path) -> list[str]:
    """Names of the notes in ``environment``.

    Raises:
        JaxlensError: The folder leads elsewhere, or cannot be listed.
    """
    names = contained.names(contained.contained(run_dir, ENVIRONMENT, "any").parent)
    return [name for name in names if name.endswith(".json")]


def read_note(run_dir: str | Path, name: str, checked: bool = True) -> dict[str, Any]:
    """Reads a note.

    Args:
        run_dir: Run.
        name: File in ``environment``.
        checked: Whether its checksum must fit.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    path = contained.contained(run_dir, ENVIRONMENT, name)
    parse = records.parse_note if checked else strict_json.parse
    return parse(contained.read(path, NOTE), str(path))


def read_tokens(run_dir: str | Path) -> records.Tokens:
    """Reads ``tokens/TOKENS.json``.

    Raises:
        MissingError: It does not exist.
        DataError: It is damaged.
    """
    path = token_path(run_dir, TOKEN_RECORD)
    return records.parse_tokens(contained.read(path, LARGE), str(path))
