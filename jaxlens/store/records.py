"""The small JSON texts of a run, written canonically and parsed strictly."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxlens import config, errors
from jaxlens.store import specs, strict_json

MAX_SHARDS = 10**8
"""More would not fit the names of the files."""


_UNSEALED = {"environment", "measured", "settings", "spec"}
"""All that a note holds, and all that one of an earlier version does."""

_HASH = re.compile(r"[0-9a-f]{64}")
_ALTERED = "restore it from a copy, or use another --out"


@dataclass(frozen=True, kw_only=True)
class ShardRange:
    """Where a shard belongs; stored inside its HDF5 file too.

    Attributes:
        spec_hash: Run.
        shard: Number in the plan, from 0.
        token_start: First token of the token file.
        token_stop: End of its tokens, exclusive.
        tokens_sha256: Hash of the token file.
    """

    spec_hash: str
    shard: int
    token_start: int
    token_stop: int
    tokens_sha256: str


@dataclass(frozen=True, kw_only=True)
class Record(ShardRange):
    """The sidecar of a shard: what its file must be.

    Attributes:
        rows: Rows stored; 0 where only tallies are.
        size: Bytes of the file.
        sha256: Hash of the file.
    """

    rows: int
    size: int
    sha256: str

    def shard_range(self) -> ShardRange:
        """The part that the shard itself repeats."""
        return ShardRange(**{f.name: getattr(self, f.name) for f in dataclasses.fields(ShardRange)})


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """``tokens/TOKENS.json``: what the token file and its index must be.

    Attributes:
        sha256: Hash of the token file.
        n_tokens: Its length.
        dtype: Its element type.
        index_sha256: Hash of the index.
    """

    sha256: str
    n_tokens: int
    dtype: str
    index_sha256: str


def record(shard_range: ShardRange, rows: int, image: bytes | memoryview) -> Record:
    """The sidecar of an image."""
    size = memoryview(image).nbytes
    digest = hashlib.sha256(image).hexdigest()
    return Record(**dataclasses.asdict(shard_range), rows=rows, size=size, sha256=digest)


def encode(entry: Record) -> bytes:
    """Canonical JSON; equal entries have equal bytes."""
    return config.canonical(dataclasses.asdict(entry))


def parse_record(raw: bytes, name: str) -> Record:
    """Reads a sidecar.

    Raises:
        DataError: Not exactly what `encode` writes.
    """
    entry = Record(**_fields(Record, strict_json.parse(raw, name), name))
    if encode(entry) != raw or entry.token_stop < entry.token_start:
        raise errors.DataError(f"{name} is damaged: not canonical", errors.RECOMPUTE)
    return entry


def encode_tokens(entry: Tokens, more: Mapping[str, Any] | None = None) -> bytes:
    """``TOKENS.json`` with what the tokenizer has to say, under a checksum of its own."""
    document = dataclasses.asdict(entry) | dict(more or {})
    return config.canonical(document | {"checksum": _checksum(document)})


def parse_tokens(raw: bytes, name: str) -> Tokens:
    """Reads ``TOKENS.json``; further keys are the tokenizer's own, under the checksum.

    Raises:
        DataError: Not what `encode_tokens` writes: a key is missing or malformed, the checksum is
            not that of the rest, or the bytes are not canonical.
    """
    document = strict_json.parse(raw, name)
    known = {f.name for f in dataclasses.fields(Tokens)}
    body = {key: value for key, value in document.items() if key != "checksum"}
    try:
        sound = document.get("checksum") == _checksum(body) and config.canonical(document) == raw
    except ValueError:  # 1e999 is JSON, but not canonical
        sound = False
    if not sound:
        raise errors.DataError(f"{name} is damaged: its checksum does not fit", errors.RECOMPUTE)
    entry = Tokens(**_fields(Tokens, {k: v for k, v in document.items() if k in known}, name))
    if entry.dtype not in ("uint16", "uint32"):
        raise errors.DataError(f"{name} is damaged: tokens of type {entry.dtype}", errors.RECOMPUTE)
    return entry


def encode_note(document: Mapping[str, Any]) -> bytes:
    """A note on a worker, which nothing else repeats, under a checksum of its own."""
    body = {key: value for key, value in document.items() if key != "checksum"}
    return config.canonical(body | {"checksum": _checksum(body)})


def parse_note(raw: bytes, name: str) -> dict[str, Any]:
    """Reads a note; those of earlier versions have no checksum.

    Raises:
        DataError: It is damaged.
    """
    document = strict_json.parse(raw, name)
    body = {key: value for key, value in document.items() if key != "checksum"}
    try:
        fits = document.get("checksum") == _checksum(body) or set(document) <= _UNSEALED
        sound = fits and config.canonical(document) == raw
    except ValueError:  # 1e999 is JSON, but not canonical
        sound = False
    if not sound:
        raise errors.DataError(f"{name} is damaged: its checksum does not fit", errors.RECOMPUTE)
    return body


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(config.canonical(document)).hexdigest()


def parse_spec(raw: bytes, name: str) -> tuple[dict[str, Any], int]:
    """Reads ``RUN.json``.

    Returns:
        The spec and its number of shards.

    Raises:
        DataError: Not a JSON object with ``plan.n_shards``, or with fields of another kind than
            they have.
    """
    spec = strict_json.parse(raw, name)
    plan = spec.get("plan")
    n_shards: Any = plan.get("n_shards") if isinstance(plan, dict) else None
    if not _is_count(n_shards) or n_shards > MAX_SHARDS:
        raise errors.DataError(f"{name} has no number of shards, plan.n_shards", _ALTERED)
    if why := specs.odd(spec):
        raise errors.DataError(f"{name} is damaged: {why}", _ALTERED)
    return spec, n_shards


def is_hash(text: str) -> bool:
    """Whether a text is a sha256 in hexadecimal."""
    return _HASH.fullmatch(text) is not None


def _fields(cls: type, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    wanted = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    if set(document) != set(wanted):
        odd = ", ".join(map(ascii, sorted(set(document) ^ set(wanted))))
        raise errors.DataError(
            f"{name} is damaged: missing or unknown {odd[:200]}", errors.RECOMPUTE
        )
    for key, value in document.items():
        if not _fits(key, wanted[key], value):
            raise errors.DataError(f"{name} is damaged: {key} makes no sense", errors.RECOMPUTE)
    return dict(document)


def _fits(key: str, kind: str, value: Any) -> bool:
    if kind == "int":
        return _is_count(value)
    if not isinstance(value, str):
        return False
    return is_hash(value) if key != "dtype" else len(value) <= 16


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
