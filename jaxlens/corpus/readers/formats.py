"""The kinds of files that are read, by the ends of their names: one table."""

from __future__ import annotations

from jaxlens.corpus.readers import (
    arrow,
    delimited,
    items,
    json_files,
    json_lines,
    parquet,
    plain_text,
    tar,
)
from jaxlens.files import compression

_PACKED: dict[str, items.Reader] = {
    ".txt": plain_text.read,
    ".jsonl": json_lines.read_file,
    ".ndjson": json_lines.read_file,
}
_PACKED_TOO: dict[str, items.Reader] = {
    ".csv": delimited.read_csv,
    ".tsv": delimited.read_tsv,
    ".tar": tar.read,
}


def _packed(readers: dict[str, items.Reader]) -> dict[str, items.Reader]:
    return {kind + end: read for kind, read in readers.items() for end in compression.SUFFIXES}


KINDS: tuple[dict[str, items.Reader], ...] = (
    {**_packed(_PACKED), ".parquet": parquet.read},
    {**_packed(_PACKED_TOO), ".tgz": tar.read, ".arrow": arrow.read},
    _packed({".json": json_files.read}),
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
