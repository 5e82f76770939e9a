"""Where the files of a run lie, and how a run directory begins."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import config, errors, schema
from jaxlens.files import contained, publish, system
from jaxlens.store import records

RUN = "RUN.json"
MANIFEST = "MANIFEST"
SUMMARY = "summary.h5"
INDEX = "index.h5"
DERIVED = (SUMMARY, INDEX, MANIFEST)
"""Files that follow from the shards and end a run, in the order in which they are written."""

SHARDS = "shards"
ENVIRONMENT = "environment"
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

_PART = re.compile(r"part-(\d{5,9})\.(h5|json)")
_ABSENT = object()
_FOLLOWS = re.compile(
    r"corpus\.(sha256|index_sha256|n_tokens|n_documents|skipped\b.*)|plan\.(n_steps|n_shards)"
)
"""What differs in the specs of two runs because their tokens do."""

_DECIDES = re.compile(r"null\b.*|seed|corpus\.(kind|bos)|tokenizer\b.*")
"""What makes other tokens of the same text."""
_OURS = frozenset({RUN, SHARDS, TOKENS, ENVIRONMENT, *DERIVED})


class AnotherRun(errors.ConfigError):
    """The run that has begun in a directory is another one."""


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


def shard_path(run_dir: str | Path, shard: int) -> Path:
    """The rows and tallies of a shard."""
    return contained.contained(run_dir, SHARDS, shard_name(shard))


def sidecar_path(run_dir: str | Path, shard: int) -> Path:
    """The record of a shard."""
    return contained.contained(run_dir, SHARDS, sidecar_name(shard))


def token_path(run_dir: str | Path, name: str = TOKEN_FILE) -> Path:
    """The token file, its index or its record."""
    return contained.contained(run_dir, TOKENS, name)


def environment_path(run_dir: str | Path, worker: str) -> Path:
    """Where a worker notes what must not matter: versions, devices, times.

    Raises:
        ConfigError: The worker's name is no file name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", worker):
        raise errors.ConfigError(f"{worker!r} is no name for a worker", "use letters and digits")
    return contained.contained(run_dir, ENVIRONMENT, f"{worker}.json")


def part_number(name: str) -> int | None:
    """The shard that a file name in ``shards/`` stands for; None if it stands for none."""
    match = _PART.fullmatch(name)
    if match is None or name not in (shard_name(int(match[1])), sidecar_name(int(match[1]))):
        return None
    return int(match[1])


def shards_there(run_dir: str | Path, n_shards: int) -> list[int]:
    """Shards of a plan of which anything is there, in order.

    A plan may promise millions of shards; what is done about it grows with what is there.

    Raises:
        JaxlensError: The folder leads elsewhere, or cannot be listed.
    """
    names = contained.names(contained.contained(run_dir, SHARDS))
    numbers = {number for name in names if (number := part_number(name)) is not None}
    return sorted(number for number in numbers if number < n_shards)


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
    """Reads the sidecar of a shard, whatever it says.

    Raises:
        MissingError: It is not there.
        DataError: It is damaged.
    """
    path = sidecar_path(run_dir, shard)
    return records.parse_record(contained.read(path, SMALL), str(path))


def read_manifest(run_dir: str | Path, n_shards: int) -> tuple[str, list[records.Record]]:
    """Reads ``MANIFEST``: spec hash and records.

    Args:
        run_dir: Run.
        n_shards: Shards that there are, which bounds what is read; a few more do not matter.

    Raises:
        MissingError: It is not there.
        DataError: It is damaged.
    """
    path = contained.contained(run_dir, MANIFEST)
    limit = max(LARGE, (n_shards + 1) * LINE)
    return records.parse_manifest(contained.read(path, limit), str(path))


def notes_there(run_dir: str | Path) -> list[str]:
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
        checked: Whether its checksum must fit; not where only a part is wanted that has its own.

    Raises:
        MissingError: It is not there.
        DataError: It is damaged.
    """
    path = contained.contained(run_dir, ENVIRONMENT, name)
    parse = records.parse_note if checked else records.parse_json
    return parse(contained.read(path, NOTE), str(path))


def read_tokens(run_dir: str | Path) -> records.Tokens:
    """Reads ``tokens/TOKENS.json``.

    Raises:
        MissingError: It is not there.
        DataError: It is damaged.
    """
    path = token_path(run_dir, TOKEN_RECORD)
    return records.parse_tokens(contained.read(path, LARGE), str(path))


def create_run(run_dir: str | Path, spec_bytes: bytes, disk: system.Disk = system.DISK) -> Spec:
    """Begins a run, or finds the same one begun.

    Args:
        run_dir: Directory; created if absent.
        spec_bytes: The spec, canonical JSON.
        disk: System calls.

    Raises:
        ConfigError: Another run, or something that is no run, is there.
        DataError: ``RUN.json`` is damaged.
        StorageError: It is no directory, or cannot be written.
    """
    spec, n_shards = records.parse_spec(spec_bytes, "the spec")
    result = Spec(spec, config.spec_hash(spec_bytes), n_shards)
    publish.make_directory(run_dir, disk)
    path = contained.contained(run_dir, RUN)
    if not os.path.lexists(path):
        _check_ours(run_dir, result.hash)
        publish.publish(path, spec_bytes, disk, replace=False)
    found = contained.read(path, LARGE)  # perhaps what another worker wrote at the same moment
    _compare(path, found, spec_bytes)
    publish.remove_leftovers(run_dir, disk)
    for folder in (SHARDS, TOKENS, ENVIRONMENT):
        publish.make_directory(contained.contained(run_dir, folder), disk)
        publish.remove_leftovers(contained.contained(run_dir, folder), disk)
    return result


def require_same_model(run_dir: str | Path, spec: Mapping[str, Any], known: dict[str, Any]) -> None:
    """Refuses another model by what is known of it before it is loaded.

    Args:
        run_dir: Run.
        spec: Its spec.
        known: Some of the fields of ``model`` that the spec is to have.

    Raises:
        AnotherRun: Naming the fields that differ.
    """
    model = spec.get("model")
    there = {name: model.get(name) for name in known} if isinstance(model, dict) else {}
    if there != known:
        path = contained.contained(run_dir, RUN)
        raise _differs(path, {"model": there}, {"model": known})


def require_same_run(run_dir: str | Path, spec_bytes: bytes) -> None:
    """Refuses a directory in which another run has begun; writes nothing.

    Raises:
        AnotherRun: Naming the fields that differ.
        DataError: ``RUN.json`` is damaged.
    """
    path = contained.contained(run_dir, RUN)
    if os.path.lexists(path):
        _compare(path, contained.read(path, LARGE), spec_bytes)


def _compare(path: Path, found: bytes, spec_bytes: bytes) -> None:
    if found != spec_bytes:
        there, here = (records.parse_spec(raw, str(path))[0] for raw in (found, spec_bytes))
        raise _differs(path, there, here)


def refuse_foreign(run_dir: str | Path) -> None:
    """Refuses a directory that holds something else than a run, before anything is put there.

    What users keep beside a run that has begun is theirs, and no matter.

    Raises:
        ConfigError: Naming what is there.
    """
    if not os.path.isdir(run_dir) or os.path.lexists(contained.contained(run_dir, RUN)):
        return
    for name in contained.names(Path(run_dir)):
        if name not in _OURS and not publish.is_temporary(name):
            raise _foreign(run_dir, name)
    odd = next(_unexplained(run_dir), None)
    # Asked last: a rival that begins the run at this moment writes the spec before all else.
    if odd is not None and not os.path.lexists(contained.contained(run_dir, RUN)):
        raise _foreign(run_dir, odd)


def _unexplained(run_dir: str | Path) -> Iterator[str]:
    """What a run leaves nowhere before it has a spec; names alone prove little."""
    tokens = {TOKEN_FILE, TOKEN_INDEX, TOKEN_RECORD}
    for name in contained.names(contained.contained(run_dir, TOKENS)):
        if name not in tokens and not publish.is_temporary(name):
            yield f"{TOKENS}/{name}"
    parts = contained.names(contained.contained(run_dir, SHARDS))
    for name in parts:
        if part_number(name) is None and not publish.is_temporary(name):
            yield f"{SHARDS}/{name}"
    if not parts:
        yield from sorted({MANIFEST, SUMMARY, INDEX} & set(contained.names(Path(run_dir))))


def _check_ours(run_dir: str | Path, spec_hash: str) -> None:
    """Refuses a directory that holds anything but the beginnings of this very run."""
    refuse_foreign(run_dir)
    for name in contained.names(contained.contained(run_dir, SHARDS)):
        number = part_number(name)
        if number is not None and name.endswith(".json"):
            with contextlib.suppress(errors.DataError):  # damaged ones are recomputed
                if read_record(run_dir, number).spec_hash != spec_hash:
                    raise _foreign(run_dir, f"{SHARDS}/{name}")


def _foreign(run_dir: str | Path, name: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{run_dir} is not empty and holds no such run: {name}", "use another --out"
    )


def _differs(path: Path, there: dict[str, Any], here: dict[str, Any]) -> AnotherRun:
    old, new = dict(_flatten(there)), dict(_flatten(here))
    keys = [k for k in sorted(old | new) if old.get(k, _ABSENT) != new.get(k, _ABSENT)]
    keys.sort(key=lambda k: not _DECIDES.fullmatch(k))
    # The index of the tokens has the fields that are kept.
    if "corpus.sha256" not in keys and any(k.startswith("corpus.keep") for k in keys):
        keys = [k for k in keys if k != "corpus.index_sha256"]
    tokens = ""
    if keys and not _DECIDES.fullmatch(keys[0]) and (tokens := _other_tokens(old, new)):
        keys = [k for k in keys if not _FOLLOWS.fullmatch(k)]
    parts = [tokens] if tokens else []
    parts += [
        f"{_short(ascii(k)[1:-1])} is {_spell(old, k)} there, {_spell(new, k)} here"
        for k in keys[:3]
    ]
    more = f" (and {len(keys) - 3} more)" if len(keys) > 3 else ""
    return AnotherRun(
        f"{path} is of another run: {'; '.join(parts) or 'its bytes differ'}{more}",
        "name the corpus and the --limit that the run began with, or use another --out: a run "
        "cannot be extended"
        if tokens
        else "use another --out, or the settings that the run began with",
    )


def _other_tokens(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """How the tokens of two specs differ; empty where they are the same."""
    old, new = (spec.get("corpus.n_tokens") for spec in (there, here))
    if type(old) is int and type(new) is int and old != new:
        return f"its corpus has {old:,} tokens, this one {new:,}"
    old, new = (spec.get("corpus.sha256") for spec in (there, here))
    if isinstance(old, str) and isinstance(new, str) and old != new:
        return "its corpus has other tokens, as many as this one"
    return ""


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spell(document: Mapping[str, Any], key: str) -> str:
    return _short(repr(document[key])) if key in document else "absent"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
