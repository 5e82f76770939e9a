"""The kinds of files that are read, by the ends of their names: one table."""

from __future__ import annotations

from jaxlens.corpus import (
    archives,
    arrowfile,
    delimited,
    items,
    jsonfile,
    lines,
    parquet,
    plaintext,
    tarfiles,
)

_PACKED: dict[str, items.Reader] = {
    ".txt": plaintext.read,
    ".jsonl": lines.read_file,
    ".ndjson": lines.read_file,
}
_PACKED_TOO: dict[str, items.Reader] = {
    ".csv": delimited.read_csv,
    ".tsv": delimited.read_tsv,
    ".tar": tarfiles.read,
}


def _packed(readers: dict[str, items.Reader]) -> dict[str, items.Reader]:
    return {kind + end: read for kind, read in readers.items() for end in archives.SUFFIXES}


KINDS: tuple[dict[str, items.Reader], ...] = (
    {**_packed(_PACKED), ".parquet": parquet.read},
    {**_packed(_PACKED_TOO), ".tgz": tarfiles.read, ".arrow": arrowfile.read},
    _packed({".json": jsonfile.read}),
)
"""Readers by suffix, in three ranks: of a folder or a pattern only files of the first rank are read
of which there are any. So what lies beside a corpus, such as its description in JSON, does not
become part of it, and folders are read as they were before later ranks were added."""

READERS: dict[str, items.Reader] = {end: read for kind in KINDS for end, read in kind.items()}
"""Readers by suffix, in lower case."""

SUFFIXES = tuple(READERS)

_RANKS = {end: rank for rank, kind in enumerate(KINDS) for end in kind}


def suffix(name: str) -> str:
    """Which of ``SUFFIXES`` a file name ends in, in any case; empty for none."""
    lower = name.lower()
    return next((end for end in SUFFIXES if lower.endswith(end)), "")


def rank(name: str) -> int:
    """Position in ``KINDS`` of the kind of a file; ``len(KINDS)`` for none."""
    return _RANKS.get(suffix(name), len(KINDS))
